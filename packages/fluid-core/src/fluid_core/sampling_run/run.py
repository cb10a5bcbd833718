"""One run of `fluid sample`: plan, check, encode, draw, and a sheet of what came out."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import attrs
from PIL import Image

from fluid_core.atomic_files import remove_unfinished
from fluid_core.claimed_folder import FolderInUseError, claimed_folder
from fluid_core.contact_sheet import contact_sheet, save_image
from fluid_core.pipeline import FluidPipeline
from fluid_core.protocols import OrderPolicy
from fluid_core.sampling_run.batch_texts import BatchTexts
from fluid_core.sampling_run.drawing import PictureWriter
from fluid_core.sampling_run.folder import (
    SHEET_FILE,
    OtherRunError,
    RunDescription,
    begin_run,
    check_same_run,
    default_folders,
    recorded_seed,
)
from fluid_core.sampling_run.model_identity import model_identity, model_name
from fluid_core.sampling_run.plan import PlannedImage, fresh_seed, numbered, plan_batches, plan_images
from fluid_core.sampling_run.prompts_file import Prompt
from fluid_core.sampling_run.settings import SamplingSettings
from fluid_core.sampling_run.together import together
from fluid_core.training.devices import training_device
from fluid_core.training.processes import Processes

SHEET_SIZE = 120
"""Pictures on a contact sheet at most: a sheet is for the eye, not for thousands."""


@attrs.frozen(kw_only=True)
class SamplingRun:
    """What to draw, and where to put it."""

    model: Path
    """Folder of a saved model."""

    prompts: Sequence[Prompt]
    out: Path | None
    """Folder for the pictures; None: a new one called `samples`."""

    settings: SamplingSettings
    images_per_prompt: int = 1
    negative_prompt: str | None = None
    seed: int | None = None
    """None: the seed of the run that is continued, or a fresh one."""

    batch_size: int = 16
    device: str = "auto"
    sheet: bool = True
    animation: bool = False
    overwrite: bool = False
    name_of: Callable[[int, int, int], str] = numbered
    """How files are named; see `plan.plan_images`. `overwrite` deletes pictures with the usual names only."""

    @property
    def negative_prompts_mean_nothing(self) -> bool:
        """Whether there are negative prompts, and no guidance that would move away from them."""
        given = self.negative_prompt is not None or any(prompt.negative is not None for prompt in self.prompts)
        return given and self.settings.guidance == 1.0


@attrs.frozen(kw_only=True)
class FinishedRun:
    """What came of a run."""

    folder: Path
    sheet: Path | None
    num_images: int
    num_drawn: int
    """Pictures that this call drew, in all processes; the others were there."""

    seed: int
    weights: str
    """`ema` or `raw`."""

    head_backend: str | None
    """Which sampler of the head ran; None if nothing was left to draw."""


def draw_pictures(run: SamplingRun, *, processes: Processes, told: Callable[[PlannedImage, Path], None]) -> FinishedRun:
    """Draw what is missing of a run, each of the processes its share; all return the same.

    `told` hears of every picture that this process wrote. Raises the errors of loading the model, of the settings and
    of the prompts before the first file is written, and `OutputError` for a folder that holds something else.
    """
    pipeline, order = together(processes, lambda: _loaded(run))
    weights = {
        "folder": model_name(run.model),
        "identity": model_identity(pipeline.model),
        "weights": pipeline.weights,
    }
    with ExitStack() as claims:
        # The first process decides where, and on a seed that nobody chose.
        place = together(processes, lambda: _place(run, weights, claims) if processes.is_first else None)
        folder_name, seed, continued = processes.gather_json(place)[0]
        description = _description(run, weights, seed)
        writer = PictureWriter(
            pipeline=pipeline,
            order=order,
            settings=run.settings,
            model=weights,
            folder=Path(folder_name),
            animation=run.animation,
            told=told,
        )
        batches = plan_batches(description.images, run.batch_size)
        # Whole batches are shared out, not pictures: then the number of processes makes no difference to any picture.
        pending = [batch for batch in batches if not continued or writer.missing(batch)]
        own = pending[processes.rank :: processes.count]
        texts = together(processes, lambda: BatchTexts(pipeline, own))

        if processes.is_first:
            remove_unfinished(writer.folder)
            if not continued:
                begin_run(writer.folder, description)
        processes.wait()
        num_missing = sum(len(writer.missing(batch)) for batch in own)
        backends = [writer.draw(batch, texts[number]) for number, batch in enumerate(own)]
        gathered = processes.gather_json([num_missing, backends[:1]])
        sheet = writer.folder / SHEET_FILE if run.sheet else None
        if sheet is not None and processes.is_first:
            _draw_sheet(writer.folder, description.images, sheet)
        return FinishedRun(
            folder=writer.folder,
            sheet=sheet,
            num_images=len(description.images),
            num_drawn=sum(count for count, _ in gathered),
            seed=description.seed,
            weights=pipeline.weights,
            head_backend=next((backend for _, found in gathered for backend in found), None),
        )


def _loaded(run: SamplingRun) -> tuple[FluidPipeline, OrderPolicy | None]:
    """The model on its device and the order to draw in, once it is known that they can do what is asked."""
    pipeline = FluidPipeline.from_pretrained(run.model).to(training_device(run.device, setting="--device"))
    order = run.settings.build_order()
    run.settings.check(pipeline.model, order)
    return pipeline, order


def _description(run: SamplingRun, model: Mapping[str, str], seed: int) -> RunDescription:
    images = plan_images(
        run.prompts,
        images_per_prompt=run.images_per_prompt,
        seed=seed,
        negative_prompt=run.negative_prompt,
        name_of=run.name_of,
    )
    return RunDescription(model=model, settings=run.settings.as_json(), seed=seed, images=tuple(images))


def _place(run: SamplingRun, model: Mapping[str, str], claims: ExitStack) -> tuple[str, int, bool]:
    """The folder for the pictures, held by `claims`, the seed of the run, and whether a part of it is there."""
    for folder in default_folders() if run.out is None else [run.out]:
        try:
            with ExitStack() as claim:
                claim.enter_context(claimed_folder(folder))
                before = None if run.overwrite else recorded_seed(folder)
                seed = next(one for one in (run.seed, before, fresh_seed()) if one is not None)
                description = _description(run, model, seed)
                plan_batches(description.images, run.batch_size)
                continued = not run.overwrite and check_same_run(folder, description)
                claims.push(claim.pop_all())
                return str(folder), seed, continued
        except (OtherRunError, FolderInUseError):
            if run.out is not None:
                raise
    raise AssertionError("unreachable: there is always another name")


def _draw_sheet(folder: Path, images: Sequence[PlannedImage], path: Path) -> None:
    """A contact sheet of the pictures, read from their files."""
    shown = list(images[:SHEET_SIZE])
    title = f"The first {len(shown)} of {len(images)} pictures" if len(shown) < len(images) else ""
    pictures = []
    for image in shown:
        with Image.open(folder / f"{image.name}.png") as picture:
            pictures.append(picture.convert("RGB"))
    save_image(contact_sheet(pictures, [image.prompt for image in shown], title=title), path)
