"""Which pictures a protocol judges, and which captions they belong to."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from PIL import Image

from fluid_core.atomic_files import read_json, write_bytes, write_json
from fluid_core.catalog import ComponentCatalog
from fluid_core.errors import CheckpointError, DataError, InvalidRequestError
from fluid_core.evaluation.captions_manifest import describe_captions
from fluid_core.evaluation.evaluation_data import EvaluationData
from fluid_core.evaluation.generated_pictures import (
    DrawnPictures,
    GeneratedPictures,
    draw_for_prompts,
    pictures_in_folder,
)
from fluid_core.evaluation.measured_model import image_size_of
from fluid_core.sampling_run.plan import PlannedImage
from fluid_core.sampling_run.prompts_file import Prompt, read_prompts
from fluid_core.sampling_run.together import together
from fluid_core.training.processes import Processes

_CAPTIONS_FILE = "captions.jsonl"


@attrs.frozen(kw_only=True)
class PicturesChoice:
    """What is judged: pictures to draw (`drawn`) or those of a folder (`images`), one of the two.

    Captions are those of a file or of a data set. Pictures that are drawn need one of the two; a folder may tell its
    own. Raises `InvalidRequestError` for both or neither of what should be one.
    """

    out: Path
    """Folder of the evaluation; captions of a data set are written there."""

    drawn: DrawnPictures | None = None
    images: Path | None = None
    captions: Path | None = None
    data: EvaluationData | None = None
    num_images: int | None = None
    """So many of the captions or of the folder's pictures; None is all."""

    overwrite: bool = False
    """Let what another evaluation left in `out` go, instead of refusing the folder."""

    def __attrs_post_init__(self) -> None:
        if (self.drawn is None) == (self.images is None):
            found = "neither" if self.drawn is None else "both"
            raise InvalidRequestError(
                f"Expected a model that draws, or a folder of pictures (--images), found {found}."
            )
        if self.drawn is not None and self.captions is None and self.data is None:
            raise InvalidRequestError(
                "Expected captions to draw for, found none: give --captions FILE, or a data set (--data NAME)."
            )


@attrs.frozen(kw_only=True, eq=False)
class PromptedPictures:
    """The pictures, and what their prompts and their size are."""

    generated: GeneratedPictures
    prompts: tuple[str, ...] | None
    captions: Mapping[str, Any] | None
    """Where the captions come from, for the record; None for those of a folder itself."""

    image_size: tuple[int, int]
    """Height and width of the first picture, and so of all that one model draws."""

    prompt_rows: tuple[Prompt, ...] = ()
    """The captions with what else their file says about them."""


def prompted_pictures(
    choice: PicturesChoice,
    *,
    processes: Processes,
    catalog: ComponentCatalog | None = None,
    told: Callable[[PlannedImage, Path], None] | None = None,
) -> PromptedPictures:
    """Draw or find the pictures; all processes return the same.

    Raises `DataError` for captions that are fewer than the pictures or not those that the pictures were drawn for, and
    what drawing and reading raises.
    """
    rows, described = _captions(choice, processes, catalog)
    if choice.drawn is not None:
        generated = draw_for_prompts(choice.drawn, rows, processes=processes, overwrite=choice.overwrite, told=told)
    else:
        assert choice.images is not None
        folder, count = choice.images, choice.num_images
        generated = together(processes, lambda: pictures_in_folder(folder, num_images=count))
    together(processes, lambda: _check_captions(generated, rows))
    prompts = tuple(row.text for row in rows[: len(generated.files)]) if rows else generated.prompts
    return PromptedPictures(
        generated=generated,
        prompts=prompts,
        captions=described,
        image_size=together(processes, lambda: _size_of(generated.files[0])),
        prompt_rows=tuple(rows),
    )


def _captions(
    choice: PicturesChoice, processes: Processes, catalog: ComponentCatalog | None
) -> tuple[list[Prompt], dict[str, Any] | None]:
    if choice.captions is not None:
        file = choice.captions
        rows = together(processes, lambda: read_prompts(file))
        wanted = choice.num_images
        if wanted is not None and wanted > len(rows):
            raise DataError(f"Expected at least {wanted} captions in {file}, found {len(rows)}.")
        return rows[:wanted], {**describe_captions(file), "num_used": len(rows[:wanted])}
    if choice.data is None or choice.drawn is None:
        # Pictures of a folder are in no order that a data set would know.
        return [], None
    data, model = choice.data, choice.drawn.model
    file = choice.out / _CAPTIONS_FILE
    together(processes, lambda: _write_captions(file, data, model, catalog) if processes.is_first else None)
    processes.wait()
    rows = together(processes, lambda: read_prompts(file))
    return rows, {**describe_captions(file), "data": data.as_json(), "num_used": len(rows)}


def _write_captions(file: Path, data: EvaluationData, model: Path, catalog: ComponentCatalog | None) -> None:
    """Captions of the items of a data set that can be read; those of an earlier call stay if they are the same ones."""
    description = {"data": data.as_json()}
    beside = file.with_suffix(".json")
    try:
        if file.is_file() and read_json(beside) == json.loads(json.dumps(description)):
            return
    except CheckpointError:
        pass
    items = data.items(image_size_of(model, catalog), catalog)
    captions = [one.item.caption for first in range(items.count) for one in items.read(range(first, first + 1))]
    if not captions:
        raise DataError("Expected at least one picture with a caption that can be read, found none.")
    lines = [json.dumps({"prompt": caption}, ensure_ascii=False) + "\n" for caption in captions]
    write_bytes(file, "".join(lines).encode())
    write_json(beside, description)


def _check_captions(generated: GeneratedPictures, rows: Sequence[Prompt]) -> None:
    if not rows:
        return
    if len(rows) < len(generated.files):
        raise DataError(f"Expected a caption for each of {len(generated.files)} pictures, found {len(rows)}.")
    for file, drawn_for, row in zip(generated.files, generated.prompts or (), rows, strict=False):
        if drawn_for != row.text:
            raise DataError(
                f"The captions are not those the pictures were drawn for: {file.name} was drawn for {drawn_for!r}, and "
                f"its caption is {row.text!r}."
            )


def _size_of(file: Path) -> tuple[int, int]:
    try:
        with Image.open(file) as picture:
            return picture.height, picture.width
    except OSError as error:
        raise DataError(f"The picture {file} can not be read: {error}.") from error
