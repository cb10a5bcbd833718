"""A folder of pictures with captions, in the layout of Hugging Face's `imagefolder`.

    pictures/
      metadata.jsonl          {"file_name": "animals/0001.png", "text": "a cat on a sofa"}
      animals/0001.png

Every line of `metadata.jsonl` is a JSON object that names a picture, relative to the folder, and its caption. The
caption may be a list of texts: each becomes an item of its own. Pictures of any size and mode are taken.
"""

import hashlib
import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

import attrs
from PIL import Image

from fluid_core.atomic_files import write_bytes
from fluid_core.data.captioned_images import CaptionedImage
from fluid_core.data.options import ImageFolderOptions
from fluid_core.data.picture_file import read_picture
from fluid_core.errors import ConfigurationError, DataError
from fluid_core.exchange import DatasetContext

METADATA_FILE = "metadata.jsonl"

_FILE_COLUMN = "file_name"
_MOST_PROBLEMS_SHOWN = 5
_DRIVE = re.compile(r"[A-Za-z]:")


@attrs.frozen(kw_only=True)
class CaptionedFile:
    """One line of the metadata: a picture, relative to the folder, and its captions (at least one)."""

    file_name: str
    captions: tuple[str, ...]


@attrs.frozen(kw_only=True)
class _Item:
    file_name: str
    caption: str
    mirrored: bool


class ImageFolderDataset:
    """Captioned pictures from a folder, cropped and resized. A `CaptionedImages`.

    A picture belongs to one split for good: it is chosen by a hash of its file name, so adding pictures moves no
    other (if the hash leaves a split empty, the one picture nearest to it is moved over). All captions of a picture
    and its mirrored copy stay in the same split.

    Raises `DataError` for everything wrong with the folder, with the first few problems by line, and
    `ConfigurationError` if the split asked for is unknown, or is a validation split of no pictures.
    """

    def __init__(self, options: ImageFolderOptions, image_size: tuple[int, int], split: str) -> None:
        if split not in ("train", "validation"):
            raise ConfigurationError(f"A folder of pictures has the splits 'train' and 'validation', found '{split}'.")
        self.options = options
        self.image_size = image_size
        self.split = split
        self.folder = Path(options.path).expanduser()
        files = read_metadata(self.folder, options.caption_column)
        chosen = _files_of_split(files, split, options.validation_fraction, self.folder)
        copies = (False, True) if options.horizontal_flip and split == "train" else (False,)
        self._items = [
            _Item(file_name=file.file_name, caption=caption, mirrored=mirrored)
            for mirrored in copies
            for file in chosen
            for caption in file.captions
        ]

    def __len__(self) -> int:
        """Number of items: one for each caption, twice that if mirrored copies are wanted."""
        return len(self._items)

    def __getitem__(self, index: int) -> CaptionedImage:
        """Item `index`, with values in [-1, 1].

        Raises `IndexError` outside 0 ... len - 1, and `UnreadableImageError` for a damaged picture.
        """
        if not 0 <= index < len(self._items):
            raise IndexError(f"The {self.split} split has the items 0 to {len(self._items) - 1}, asked for {index}.")
        item = self._items[index]
        image = read_picture(
            self.folder / item.file_name,
            self.image_size,
            center_crop=self.options.center_crop,
            mirrored=item.mirrored,
        )
        return CaptionedImage(image=image, caption=item.caption)


def read_metadata(folder: Path, caption_column: str) -> tuple[CaptionedFile, ...]:
    """Read and check `metadata.jsonl` in `folder`; that the pictures exist is checked, not that they can be read.

    Raises `DataError` if the folder or file is missing or empty, or, with line numbers, if lines are no JSON
    objects, lack a column, have an empty caption, name a missing picture, or one outside the folder.
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
            files.append(_captioned_file(line, folder, caption_column))
        except _BadLineError as error:
            problems.append(f"line {number}: {error}")
    if problems:
        shown = "\n".join(f"  {problem}" for problem in problems[:_MOST_PROBLEMS_SHOWN])
        hidden = len(problems) - _MOST_PROBLEMS_SHOWN
        more = f"\n  and {hidden} more lines" if hidden > 0 else ""
        raise DataError(f"Found {len(problems)} bad line(s) in {path}:\n{shown}{more}")
    if not files:
        raise DataError(f"Expected captions in {path}, found an empty file. Write one JSON object per picture.")
    return tuple(files)


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


def _captioned_file(line: str, folder: Path, caption_column: str) -> CaptionedFile:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _BadLineError(f"not valid JSON ({error})") from error
    if not isinstance(row, dict):
        raise _BadLineError(f"expected a JSON object, found {type(row).__name__}")
    for column, advice in ((_FILE_COLUMN, ""), (caption_column, "; set the option 'caption_column'")):
        if column not in row:
            columns = ", ".join(sorted(map(str, row))) or "none"
            raise _BadLineError(f"expected a column '{column}', found {columns}{advice}")
    file_name = _file_name(row[_FILE_COLUMN], folder)
    return CaptionedFile(file_name=file_name, captions=_captions(row[caption_column], file_name))


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


def _captions(value: Any, file_name: str) -> tuple[str, ...]:
    captions = tuple(value) if isinstance(value, list) else (value,)
    if not captions:
        raise _BadLineError(f"the list of captions of '{file_name}' is empty")
    for caption in captions:
        if not isinstance(caption, str):
            raise _BadLineError(f"the caption of '{file_name}' must be a text, found {caption!r}")
        if not caption.strip():
            raise _BadLineError(f"the caption of '{file_name}' is empty")
        if not caption.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in caption):
            raise _BadLineError(f"the caption of '{file_name}' holds half a character: {caption!a}")
    return captions


def _files_of_split(
    files: tuple[CaptionedFile, ...], split: str, validation_fraction: float, folder: Path
) -> list[CaptionedFile]:
    if split == "validation" and validation_fraction == 0:
        raise ConfigurationError(
            f"A validation split of {folder} was asked for, but validation_fraction is 0. Set it above 0."
        )
    ranks = {file.file_name: _rank(file.file_name) for file in files}
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


def _rank(file_name: str) -> float:
    """A number from 0 to 1 that depends on the name alone, on every machine."""
    return int.from_bytes(hashlib.sha256(file_name.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2.0**64


def build_image_folder(options: ImageFolderOptions, context: DatasetContext) -> ImageFolderDataset:
    """Build the data set for a run. Raises as `ImageFolderDataset` does."""
    return ImageFolderDataset(options, context.image_size, context.split)


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
