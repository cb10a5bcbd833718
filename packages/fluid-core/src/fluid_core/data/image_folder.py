"""A folder of pictures with captions, in the layout of Hugging Face's `imagefolder`.

    pictures/
      metadata.jsonl          {"file_name": "animals/0001.png", "text": "a cat on a sofa"}
      animals/0001.png

Every line of `metadata.jsonl` is a JSON object that names a picture, relative to the folder, and its caption. The
caption may be a list of texts, of which every epoch draws one. Pictures of any size and mode are taken.
"""

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

import attrs
from PIL import Image

from fluid_core.atomic_files import write_bytes
from fluid_core.data.captioned_images import CaptionedImage
from fluid_core.data.captioned_picture import (
    caption_texts,
    captioned_picture,
    item_draw,
    validation_options,
    validation_rank,
)
from fluid_core.data.options import ImageFolderOptions
from fluid_core.errors import ConfigurationError, DataError
from fluid_core.exchange import DatasetContext

METADATA_FILE = "metadata.jsonl"

_FILE_COLUMN = "file_name"
_MOST_PROBLEMS_SHOWN = 5
_DRIVE = re.compile(r"[A-Za-z]:")


@attrs.frozen(kw_only=True)
class CaptionedFile:
    """One line of the metadata: a picture, relative to the folder, and what stands in its caption columns."""

    file_name: str
    captions: dict[str, Any]


class ImageFolderDataset:
    """Captioned pictures from a folder, cropped and resized. A `CaptionedImages` with `EpochVariants`.

    A picture belongs to one split for good: it is chosen by a hash of its file name, so adding pictures moves no
    other (if the hash leaves a split empty, the one picture nearest to it is moved over). A picture's mirrored copy
    stays in the same split. What is drawn for item `i` follows from `seed`, the epoch and `i`.

    Raises `DataError` for everything wrong with the folder, with the first few problems by line, and
    `ConfigurationError` if the split asked for is unknown, or is a validation split of no pictures.
    """

    def __init__(self, options: ImageFolderOptions, image_size: tuple[int, int], split: str, *, seed: int = 0) -> None:
        if split not in ("train", "validation"):
            raise ConfigurationError(f"A folder of pictures has the splits 'train' and 'validation', found '{split}'.")
        self.options = options if split == "train" else validation_options(options)
        self.image_size = image_size
        self.split = split
        self.seed = seed
        self.folder = Path(options.path).expanduser()
        files = read_metadata(self.folder, tuple(options.caption_shares))
        self._files = _files_of_split(files, split, options.validation_fraction, self.folder)
        self._num_copies = 2 if self.options.horizontal_flip else 1
        several = any(len(caption_texts(value)) > 1 for file in self._files for value in file.captions.values())
        self.varies: bool = split == "train" and (options.varies or several)
        """Whether crops or captions are drawn anew in every epoch."""

    def __len__(self) -> int:
        """Number of items: one for each picture, twice that if mirrored copies are wanted."""
        return self._num_copies * len(self._files)

    def __getitem__(self, index: int) -> CaptionedImage:
        """Item `index` as it looks in the first epoch, with values in [-1, 1].

        Raises `IndexError` outside 0 ... len - 1, and `SkippedItemError` for a picture that is damaged, too small or
        too large, or has no caption.
        """
        return self.variant(index, epoch=0)

    def variant(self, index: int, *, epoch: int) -> CaptionedImage:
        """Item `index` as it looks in `epoch`. Raises as `dataset[index]` does."""
        if not 0 <= index < len(self):
            raise IndexError(f"The {self.split} split has the items 0 to {len(self) - 1}, asked for {index}.")
        copy, number = divmod(index, len(self._files))
        path = self.folder / self._files[number].file_name
        return captioned_picture(
            path,
            self._files[number].captions,
            name=str(path),
            options=self.options,
            image_size=self.image_size,
            draw=item_draw(self.seed, epoch if self.split == "train" else 0, str(index)),
            mirrored=copy == 1,
        )


def read_metadata(folder: Path, caption_columns: tuple[str, ...]) -> tuple[CaptionedFile, ...]:
    """Read and check `metadata.jsonl` in `folder`; that the pictures exist is checked, not that they can be read.

    Raises `DataError` if the folder or file is missing or empty, or no line has a caption, or, with line numbers, if
    lines are no JSON objects, name no picture, a missing one, or one outside the folder. A line without a caption
    among others that have one is no error here: that picture can not be used when its turn comes.
    """
    path = _metadata_path(folder)
    files: list[CaptionedFile] = []
    problems: list[str] = []
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"Expected {path} to be UTF-8 text, found other bytes ({error}). Save it as UTF-8.") from error
    except OSError as error:
        raise DataError(f"Could not read {path}: {error.strerror}.") from error
    # Not splitlines: captions may hold separators that JSON allows inside a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            files.append(_captioned_file(line, folder, caption_columns))
        except _BadLineError as error:
            problems.append(f"line {number}: {error}")
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:_MOST_PROBLEMS_SHOWN])
        hidden = len(problems) - _MOST_PROBLEMS_SHOWN
        more = f"\n  and {hidden} more lines" if hidden > 0 else ""
        raise DataError(f"Found {len(problems)} bad line(s) in {path}:\n{shown}{more}")
    if not files:
        raise DataError(f"Expected captions in {path}, found an empty file. Write one JSON object per picture.")
    if not any(caption_texts(value) for file in files for value in file.captions.values()):
        raise DataError(_no_captions(path, files, caption_columns, text))
    return tuple(files)


def _no_captions(path: Path, files: list[CaptionedFile], caption_columns: tuple[str, ...], text: str) -> str:
    wanted = " or ".join(f"'{column}'" for column in caption_columns)
    if any(file.captions for file in files):
        return f"Expected captions in the column {wanted} of {path}, found no text in any of its {len(files)} lines."
    first = json.loads(next(line for line in text.split("\n") if line.strip()))
    columns = ", ".join(sorted(map(str, first)))
    return f"Expected a column {wanted} in {path}, found {columns}. Set the option 'caption_column' or 'captions'."


class _BadLineError(Exception):
    """What is wrong with one line; its number is added where it is known."""


def _metadata_path(folder: Path) -> Path:
    layout = f'one JSON object per line, such as {{"{_FILE_COLUMN}": "0001.png", "text": "a cat"}}'
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise DataError(f"Expected a folder of pictures at {folder}, found {found}. Check the option 'path'.")
    path = folder / METADATA_FILE
    if path.is_file():
        return path
    deeper = sorted(str(other.parent.relative_to(folder)) for other in folder.glob(f"*/{METADATA_FILE}"))
    if deeper:
        advice = f"There is one in {', '.join(deeper)}: set the option 'path' to that folder."
    elif (folder / "metadata.csv").is_file():
        advice = f"There is a metadata.csv; only {METADATA_FILE} is read. Convert it: {layout}."
    else:
        advice = f"Write the captions there, {layout}."
    raise DataError(f"Expected a file {METADATA_FILE} in {folder}, found none. {advice}")


def _captioned_file(line: str, folder: Path, caption_columns: tuple[str, ...]) -> CaptionedFile:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _BadLineError(f"not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise _BadLineError(f"expected a JSON object, found {type(row).__name__}")
    if _FILE_COLUMN not in row:
        columns = ", ".join(sorted(map(str, row))) or "none"
        raise _BadLineError(f"expected a column '{_FILE_COLUMN}', found {columns}")
    captions = {column: row[column] for column in caption_columns if column in row}
    return CaptionedFile(file_name=_file_name(row[_FILE_COLUMN], folder), captions=captions)


def _file_name(value: Any, folder: Path) -> str:
    """The checked name. Links inside the folder are followed; names that lead out of it are refused."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise _BadLineError(f"expected the name of a picture in '{_FILE_COLUMN}', found {value!r}")
    # Windows names are refused by their backslashes and drive letters, whichever system reads the folder.
    name = PurePosixPath(value.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or _DRIVE.match(str(name)):
        raise _BadLineError(f"the picture '{value}' lies outside the folder; names must be relative to {folder}")
    try:
        is_file = (folder / name).is_file()
    except OSError:
        is_file = False
    if not is_file:
        raise _BadLineError(f"the picture '{value}' does not exist in {folder}")
    return str(name)


def _files_of_split(
    files: tuple[CaptionedFile, ...], split: str, validation_fraction: float, folder: Path
) -> list[CaptionedFile]:
    if split == "validation" and validation_fraction == 0:
        raise ConfigurationError(
            f"A validation split of {folder} was asked for, but validation_fraction is 0. Set it above 0."
        )
    ranks = {file.file_name: validation_rank(file.file_name) for file in files}
    validation = {name for name, rank in ranks.items() if rank < validation_fraction}
    if len(ranks) == 1:
        if split == "validation":
            raise ConfigurationError(f"A validation split needs at least two pictures, found one in {folder}.")
        validation = set()
    elif validation_fraction > 0 and not validation:
        validation = {min(ranks, key=lambda name: ranks[name])}
    elif len(validation) == len(ranks):
        validation.remove(max(ranks, key=lambda name: ranks[name]))
    return [file for file in files if (file.file_name in validation) == (split == "validation")]


def build_image_folder(options: ImageFolderOptions, context: DatasetContext) -> ImageFolderDataset:
    """Build the data set for a run. Raises as `ImageFolderDataset` does."""
    return ImageFolderDataset(options, context.image_size, context.split, seed=context.seed)


def example_image_folder_options(folder: Path) -> ImageFolderOptions:
    """Options of a data set of eight plain pictures, of two sizes, which are written to `folder`, for tests."""
    colours = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white")
    lines = []
    for index, colour in enumerate(colours):
        name = f"{index:04d}.png"
        Image.new("RGB", (48, 40 + 8 * (index % 2)), colour).save(folder / name)
        lines.append(json.dumps({_FILE_COLUMN: name, "text": f"a {colour} wall"}) + "\n")
    write_bytes(folder / METADATA_FILE, "".join(lines).encode())
    return ImageFolderOptions(path=str(folder), validation_fraction=0.25)
