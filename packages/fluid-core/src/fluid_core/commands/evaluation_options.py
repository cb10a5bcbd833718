"""Options that the commands of `fluid evaluate` share: which pictures and which data."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fluid_core.model_folder import model_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from fluid_core.configuration import ComponentChoice
    from fluid_core.evaluation.prompted_pictures import PicturesChoice
    from fluid_core.sampling_run.settings import SamplingSettings
    from fluid_core.training.processes import Processes


class SplitName(StrEnum):
    """The parts of a data set, as choices of the command line."""

    VALIDATION = "validation"
    TRAIN = "train"


DEFAULT_NUM_IMAGES = 1000
"""Items of a data set that are taken where nobody says how many."""

ModelOrNothing = Annotated[
    Path | None, typer.Argument(metavar="[MODEL]", help="Folder of a saved model, or of a run.", show_default=False)
]
Images = Annotated[
    Path | None,
    typer.Option("--images", help="Folder of pictures to judge, instead of a model that draws.", show_default=False),
]
Captions = Annotated[
    Path | None,
    typer.Option(
        "--captions",
        metavar="FILE",
        help="Captions to draw for, as of `fluid evaluate captions`; by default those of the data set.",
        show_default=False,
    ),
]
NumImages = Annotated[
    int | None,
    typer.Option(
        "--num-images",
        min=1,
        help=f"How many pictures; by default all captions or pictures there are, and {DEFAULT_NUM_IMAGES} of a data "
        "set.",
    ),
]
Out = Annotated[Path, typer.Option("--out", help="Folder for pictures and result.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the pictures that are drawn.")]
DataSeed = Annotated[int, typer.Option("--data-seed", min=0, help="Of the choice of real pictures and captions.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Let what another evaluation left in the folder go.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Pictures at once.")]

DataName = Annotated[
    str | None,
    typer.Option("--data", help="Name of a data set; for a run by default its own.", show_default=False),
]
DataOptions = Annotated[
    list[str] | None,
    typer.Option("--data-option", metavar="NAME=VALUE", help="An option of the data set, such as path=photos."),
]
Split = Annotated[SplitName, typer.Option("--split", help="Part of the data.")]


def chosen_data(name: str | None, options: list[str] | None, model: Path | None) -> "ComponentChoice":
    """The data set that is named, or that of the run which `model` is.

    Raises `ConfigurationError` if there is neither, and for options without a name.
    """
    import json

    from fluid_core.atomic_files import read_json
    from fluid_core.configuration import ComponentChoice, read_saved_config
    from fluid_core.configuration.overrides import named_values
    from fluid_core.errors import ConfigurationError

    if name is not None:
        return ComponentChoice(name=name, options=named_values(options or []))
    file = None if model is None else model / "config.json"
    if options or file is None or not file.is_file():
        raise ConfigurationError(
            "Expected the name of a data set (--data NAME), found none, and no run that would tell its own."
        )
    data = read_saved_config(json.dumps(read_json(file)), source=str(file)).config.data
    if data is None:
        raise ConfigurationError(f"The run in {file.parent} names no data set: say which with --data NAME.")
    return data


def pictures_choice(
    *,
    model: Path | None,
    images: Path | None,
    captions: Path | None,
    data: str | None,
    data_option: list[str] | None,
    split: SplitName,
    data_seed: int,
    num_images: int | None,
    out: Path,
    settings: "Callable[[], SamplingSettings]",
    seed: int,
    batch_size: int,
    device: str,
    overwrite: bool,
    needs_data: bool,
) -> "PicturesChoice":
    """Which pictures are judged, and the data set if captions or real pictures come from one (`needs_data`).

    Raises `InvalidRequestError` and `ConfigurationError` for options that do not go together.
    """
    from fluid_core.evaluation.evaluation_data import EvaluationData
    from fluid_core.evaluation.generated_pictures import DrawnPictures
    from fluid_core.evaluation.prompted_pictures import PicturesChoice

    chosen = None
    if needs_data or data is not None or (model is not None and captions is None):
        chosen = EvaluationData(
            data=chosen_data(data, data_option, model),
            split=split.value,
            num_images=num_images or DEFAULT_NUM_IMAGES,
            seed=data_seed,
        )
    drawn = None
    if model is not None:
        drawn = DrawnPictures(
            model=model_folder(model),
            folder=out / "images",
            settings=settings(),
            seed=seed,
            batch_size=batch_size,
            device=device,
        )
    return PicturesChoice(
        out=out, drawn=drawn, images=images, captions=captions, data=chosen, num_images=num_images, overwrite=overwrite
    )


def noting(processes: "Processes") -> "Callable[[str], None]":
    """Says what happens, in the first process alone."""

    def note(text: str) -> None:
        if processes.is_first:
            typer.secho(text, err=True, fg=typer.colors.BRIGHT_BLACK)

    return note
