"""GenEval's folder of pictures: `00000/metadata.jsonl`, `00000/samples/0000.png`, and for people `00000/grid.png`."""

import re
from collections.abc import Sequence
from pathlib import Path

import attrs
from PIL import Image

from fluid_core.atomic_files import write_bytes
from fluid_core.contact_sheet import save_image
from fluid_core.errors import DataError
from fluid_core.evaluation.geneval.prompts import GenEvalPrompt, parse_prompt

METADATA_FILE = "metadata.jsonl"
SAMPLES_FOLDER = "samples"
GRID_FILE = "grid.png"
_PICTURE = re.compile(r"\d+\.png")


def picture_name(_index: int, prompt: int, repeat: int) -> str:
    """Where a picture goes, without the ending: `00012/samples/0003` for the fourth of the thirteenth prompt."""
    return f"{prompt:05d}/{SAMPLES_FOLDER}/{repeat:04d}"


@attrs.frozen(kw_only=True)
class JudgedFolder:
    """The pictures of one prompt."""

    folder: Path
    prompt: GenEvalPrompt
    pictures: tuple[Path, ...]


def prompt_folders(folder: Path) -> list[Path]:
    """The folders of prompts within, in the order of their numbers."""
    if not folder.is_dir():
        return []
    return sorted((one for one in folder.iterdir() if one.is_dir() and one.name.isdigit()), key=lambda one: one.name)


def read_folder(folder: Path) -> JudgedFolder:
    """One prompt and its pictures. Raises `DataError` if the metadata or all pictures are missing."""
    file = folder / METADATA_FILE
    try:
        line = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"Expected the line of GenEval's metadata for these pictures in {file}, found none that can be read: "
            f"{error}. If the pictures are still being drawn, let that end first."
        ) from error
    samples = folder / SAMPLES_FOLDER
    names = sorted(path.name for path in samples.glob("*.png")) if samples.is_dir() else []
    pictures = tuple(samples / name for name in names if _PICTURE.fullmatch(name))
    if not pictures:
        raise DataError(f"Expected pictures such as 0000.png in {samples}, found none.")
    return JudgedFolder(folder=folder, prompt=parse_prompt(line, str(file)), pictures=pictures)


def complete_folder(folder: Path, prompts: Sequence[GenEvalPrompt], *, num_pictures: int, grid: bool) -> None:
    """Write beside pictures, once all are there, what they were drawn for; with `grid` also all of a prompt as one."""
    for number, prompt in enumerate(prompts):
        place = folder / f"{number:05d}"
        write_bytes(place / METADATA_FILE, (prompt.line + "\n").encode())
        if grid and not (place / GRID_FILE).exists():
            files = [folder / f"{picture_name(0, number, repeat)}.png" for repeat in range(num_pictures)]
            save_image(_grid(files), place / GRID_FILE)


def _grid(files: Sequence[Path]) -> Image.Image:
    """Pictures of one size side by side."""
    pictures: list[Image.Image] = []
    for file in files:
        with Image.open(file) as opened:
            pictures.append(opened.convert("RGB"))
    width, height = pictures[0].size
    grid = Image.new("RGB", (width * len(pictures), height))
    for number, picture in enumerate(pictures):
        grid.paste(picture, (number * width, 0))
    return grid
