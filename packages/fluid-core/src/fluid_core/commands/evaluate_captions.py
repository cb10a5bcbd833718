"""`fluid evaluate captions`: a file of captions to draw for, from COCO's official annotations."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class RuleName(StrEnum):
    """What is drawn: images with one caption of each, or captions."""

    IMAGES = "images"
    CAPTIONS = "captions"


def captions(
    annotations: Annotated[
        Path, typer.Argument(help="An official file, such as captions_val2014.json.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The file to write; a .json beside it says how it was made.")] = Path(
        "captions.jsonl"
    ),
    count: Annotated[int, typer.Option(min=1, help="How many captions.")] = 30_000,
    seed: Annotated[int, typer.Option(help="Of the choice.")] = 0,
    rule: Annotated[
        RuleName, typer.Option(help="So many images and one caption of each, or so many of all captions.")
    ] = RuleName.IMAGES,
) -> None:
    """Choose the captions of a COCO evaluation once, so that everyone can draw for the same ones."""
    from fluid_core.evaluation.captions_manifest import write_captions_manifest

    written = write_captions_manifest(annotations, out, num_captions=count, seed=seed, rule=rule.value)
    typer.echo(f"{written.file}  {count} captions, SHA-256 {written.sha256}")
