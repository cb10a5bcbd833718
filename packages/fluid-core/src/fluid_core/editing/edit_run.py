"""What `fluid edit` does: one picture from a file, edited several times, and written with a sheet of it all."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from PIL import Image

from fluid_core.claimed_folder import claimed_folder
from fluid_core.contact_sheet import contact_sheet, save_image
from fluid_core.editing.canvas import ImageBox
from fluid_core.editing.picture_files import open_picture
from fluid_core.editing.picture_fitting import Fit
from fluid_core.errors import OutputError
from fluid_core.pipeline import FluidPipeline, PipelineOutput
from fluid_core.png_metadata import save_png
from fluid_core.sampling_run.folder import RUN_FILE, SHEET_FILE, package_versions, pictures_in
from fluid_core.sampling_run.model_identity import model_identity, model_name
from fluid_core.sampling_run.plan import fresh_seed
from fluid_core.sampling_run.settings import SamplingSettings


@attrs.frozen(kw_only=True)
class WantedEdit:
    """One picture and what is to become of it: exactly one of `mask`, `box` and `keep` is there."""

    image: Path
    mask: Path | None
    box: ImageBox | None
    keep: float | None
    prompt: str | None
    negative_prompt: str | None
    fit: Fit
    blend: int
    """Pixels over which the seam is eased; a variation has none."""

    def as_json(self) -> dict[str, Any]:
        """The same as plain data, files by their names alone: that is what a picture says about itself."""
        return {
            "image": self.image.name,
            "mask": None if self.mask is None else self.mask.name,
            "box": None if self.box is None else list(self.box),
            "keep": self.keep,
            "fit": self.fit,
            "blend": self.blend,
        }


@attrs.frozen(kw_only=True)
class WrittenEdit:
    """What was written: the pictures with their seeds, and the sheet."""

    pictures: tuple[tuple[Path, int], ...]
    sheet: Path
    seed: int
    """From which the seed of each picture follows: the one asked for, or a new one."""

    head_backend: str


def run_edit(
    pipeline: FluidPipeline,
    wanted: WantedEdit,
    settings: SamplingSettings,
    *,
    model_folder: Path,
    num_images: int,
    seed: int | None,
    out: Path,
    overwrite: bool,
) -> WrittenEdit:
    """Edit the picture and write results and sheet to the folder `out`; results of an earlier edit there go.

    Raises `OutputError` for a folder that holds something, unless it may be written over, for results that would
    replace what is edited, and whatever the pipeline and the files raise.
    """
    seed = fresh_seed() if seed is None else seed
    if not overwrite and out.is_dir() and any(out.iterdir()):
        raise OutputError(
            f"The folder {out} holds files already: give another --out, or --overwrite to put this edit in "
            "the place of an earlier one."
        )
    if (out / RUN_FILE).exists():
        raise OutputError(
            f"The folder {out} holds pictures of `fluid sample`, which an edit does not replace: give another --out."
        )
    image = open_picture(wanted.image)
    mask = None if wanted.mask is None else open_picture(wanted.mask)
    arguments = {
        **settings.call_arguments,
        "order": settings.build_order(),
        "negative_prompt": wanted.negative_prompt,
        "num_images_per_prompt": num_images,
        "seed": seed,
    }
    paths = [out / f"{index:05d}.png" for index in range(num_images)]
    given = {path.resolve() for path in (wanted.image, wanted.mask) if path is not None}
    if taken := [path for path in (*paths, out / SHEET_FILE) if path.resolve() in given]:
        raise OutputError(f"A result would be written over {taken[0]}, which is to be edited: give another --out.")
    with claimed_folder(out):
        result = _edited(pipeline, wanted, image, mask, arguments)
        backend = str(result.head_backend.value)
        said = {
            "prompt": wanted.prompt,
            "negative_prompt": wanted.negative_prompt,
            "edit": wanted.as_json(),
            "settings": settings.as_json() | {"head_backend": backend},
            "edit_seed": seed,
            "model": {
                "folder": model_name(model_folder),
                "identity": model_identity(pipeline.model),
                "weights": pipeline.weights,
            },
            "packages": package_versions(),
        }
        for index, (path, picture) in enumerate(zip(paths, result.images, strict=True)):
            save_png(picture, path, {**said, "seed": result.seeds[index], "index": index})
        save_image(_sheet(wanted, image, mask, result, pipeline), out / SHEET_FILE)
        for path in set(pictures_in(out)) - set(paths):
            if path.resolve() not in given:
                path.unlink()
    return WrittenEdit(
        pictures=tuple(zip(paths, result.seeds, strict=True)), sheet=out / SHEET_FILE, seed=seed, head_backend=backend
    )


def _edited(
    pipeline: FluidPipeline,
    wanted: WantedEdit,
    image: Image.Image,
    mask: Image.Image | None,
    arguments: Mapping[str, Any],
) -> PipelineOutput:
    if mask is not None:
        return pipeline.inpaint(wanted.prompt, image, mask, fit=wanted.fit, blend=wanted.blend, **arguments)
    if wanted.box is not None:
        return pipeline.outpaint(wanted.prompt, image, wanted.box, fit=wanted.fit, blend=wanted.blend, **arguments)
    assert wanted.keep is not None, "one of mask, box and keep is given"
    return pipeline.variation(image, wanted.prompt, keep=wanted.keep, fit=wanted.fit, **arguments)


def _sheet(
    wanted: WantedEdit,
    image: Image.Image,
    mask: Image.Image | None,
    result: PipelineOutput,
    pipeline: FluidPipeline,
) -> Image.Image:
    """The picture, the mask if there is one, and the results, with the prompt as title."""
    tiles = [(image, "given")]
    if wanted.box is not None:
        height, width = pipeline.model.tokenizer.image_size
        mask = Image.new("L", (width, height), 255)
        mask.paste(0, wanted.box)
    if mask is not None:
        tiles.append((mask, "white is drawn"))
    tiles += [(picture, f"seed {seed}") for picture, seed in zip(result.images, result.seeds, strict=True)]
    pictures, labels = zip(*tiles, strict=True)
    return contact_sheet(pictures, labels, title=wanted.prompt or "without a prompt")
