"""The pictures that a protocol judges: drawn by a model for given prompts, or already in a folder."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from fluid_core.atomic_files import read_json
from fluid_core.errors import DataError, FluidError
from fluid_core.evaluation.image_preparation import picture_files
from fluid_core.evaluation.result_file import MeasuredModel
from fluid_core.png_metadata import read_metadata
from fluid_core.sampling_run.folder import RUN_FILE
from fluid_core.sampling_run.plan import PlannedImage
from fluid_core.sampling_run.prompts_file import Prompt
from fluid_core.sampling_run.run import SamplingRun, draw_pictures
from fluid_core.sampling_run.settings import SamplingSettings
from fluid_core.sampling_run.together import together
from fluid_core.training.processes import Processes

_NOT_PICTURES_OF_A_RUN = ("sheet.png",)


@attrs.frozen(kw_only=True)
class GeneratedPictures:
    """Picture files of one run in their order, with what is known about what drew them."""

    files: tuple[Path, ...]
    prompts: tuple[str, ...] | None
    """One for each file; None if nobody knows."""

    model: MeasuredModel | None
    sampling: Mapping[str, Any] | None
    """Settings of the sampling run, as `fluid sample` records them."""

    seed: int | None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know about these pictures."""
        notes = []
        if any(file.suffix.lower() in (".jpg", ".jpeg", ".webp") for file in self.files):
            notes.append("Some generated pictures were compressed with losses (JPEG or WebP), which changes distances.")
        if self.model is not None and self.model.weights == "raw":
            notes.append("The model holds raw weights, not their moving average.")
        return tuple(notes)


@attrs.frozen(kw_only=True)
class DrawnPictures:
    """What to draw: one picture for each prompt, into `folder`, where a run that was stopped goes on."""

    model: Path
    folder: Path
    settings: SamplingSettings
    seed: int = 0
    batch_size: int = 16
    device: str = "auto"


def draw_for_prompts(
    plan: DrawnPictures,
    prompts: Sequence[Prompt],
    *,
    processes: Processes,
    overwrite: bool = False,
    told: Callable[[PlannedImage, Path], None] | None = None,
) -> GeneratedPictures:
    """Draw what is missing, each of the processes its share, as PNG.

    With `overwrite`, all is drawn anew. Raises as `draw_pictures` does.
    """
    run = SamplingRun(
        model=plan.model,
        prompts=prompts,
        out=plan.folder,
        settings=plan.settings,
        seed=plan.seed,
        batch_size=plan.batch_size,
        device=plan.device,
        sheet=False,
        overwrite=overwrite,
    )
    draw_pictures(run, processes=processes, told=told or _say_nothing)
    processes.wait()
    return together(processes, lambda: pictures_in_folder(plan.folder))


def pictures_in_folder(folder: Path, *, num_images: int | None = None) -> GeneratedPictures:
    """The pictures that lie in a folder, all or the first `num_images`; one of `fluid sample` knows what drew them.

    Raises `DataError` for a folder without pictures, with fewer than are wanted, or with a run that is not finished.
    """
    if not folder.is_dir():
        raise DataError(f"Expected a folder of pictures at {folder}, found none.")
    if (folder / RUN_FILE).is_file():
        found = _of_run(folder, read_json(folder / RUN_FILE))
    else:
        files = tuple(file for file in picture_files(folder) if file.name not in _NOT_PICTURES_OF_A_RUN)
        found = GeneratedPictures(files=files, prompts=_prompts_within(files), model=None, sampling=None, seed=None)
    if not found.files or len(found.files) < (num_images or 1):
        raise DataError(f"Expected at least {num_images or 1} pictures in {folder}, found {len(found.files)}.")
    if num_images is None:
        return found
    prompts = None if found.prompts is None else found.prompts[:num_images]
    return attrs.evolve(found, files=found.files[:num_images], prompts=prompts)


def _of_run(folder: Path, described: Any) -> GeneratedPictures:
    try:
        images = [(folder / str(image["file"]), str(image["prompt"])) for image in described["images"]]
        about = described["model"]
        model = MeasuredModel(
            folder=str(about["folder"]), identity=str(about["identity"]), weights=str(about["weights"])
        )
        sampling = {
            "settings": described["settings"],
            "packages": described["packages"],
            "seed": int(described["seed"]),
        }
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(f"{folder / RUN_FILE} does not describe a run of `fluid sample`: {error!r}.") from error
    missing = [file.name for file, _ in images if not file.is_file()]
    if missing:
        raise DataError(
            f"The run in {folder} is not finished: {len(missing)} of {len(images)} pictures are missing, such as "
            f"{missing[0]}. Start it again to draw them."
        )
    return GeneratedPictures(
        files=tuple(file for file, _ in images),
        prompts=tuple(prompt for _, prompt in images),
        model=model,
        sampling=sampling,
        seed=sampling["seed"],
    )


def _prompts_within(files: Sequence[Path]) -> tuple[str, ...] | None:
    """The prompts that the files themselves tell, if all of them do."""
    prompts = []
    for file in files:
        try:
            prompts.append(read_metadata(file)["prompt"])
        except (FluidError, KeyError):
            return None
    return tuple(prompts) if all(isinstance(one, str) for one in prompts) else None


def _say_nothing(_image: PlannedImage, _path: Path) -> None:
    pass
