"""Where pictures come from that are compared as a set: the files of a folder, or the items of a data set."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import attrs
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from fluid_core.data.captioned_images import CaptionedImage
from fluid_core.data.numbered_items import NumberedItems
from fluid_core.errors import DataError
from fluid_core.evaluation.evaluation_data import EvaluationData
from fluid_core.evaluation.image_preparation import ImagePreparation, picture_files
from fluid_core.evaluation.item_digest import digest_of, item_digest


@attrs.frozen(kw_only=True, eq=False)
class PicturesRead:
    """Some pictures of a source, in [-1, 1], with their numbers and what tells them from others."""

    images: Float[Tensor, "pictures 3 height width"]
    numbers: Int[Tensor, "pictures"]
    digests: UInt8[Tensor, "pictures 32"]


@runtime_checkable
class PictureSource(Protocol):
    """Pictures by number, the same every time and in every process."""

    @property
    def count(self) -> int:
        """Numbers there are, at most."""

    def read(self, numbers: range) -> PicturesRead | None:
        """Those of these pictures that can be read; None if there is none."""

    def as_json(self) -> dict[str, Any]:
        """Where the pictures come from and how they were prepared, for the record."""

    def fingerprint(self) -> str:
        """What changes when the pictures do, without reading them all; the record has their hash."""


def files_fingerprint(files: Sequence[Path]) -> str:
    """SHA-256 of names, sizes and times of change of files. Raises `DataError` for one that is not there."""
    digest = hashlib.sha256()
    for file in files:
        try:
            found = file.stat()
        except OSError as error:
            raise DataError(f"Expected a picture {file}, found none: {error.strerror}.") from error
        digest.update(f"{file.name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


@attrs.frozen(kw_only=True, eq=False)
class FolderPictures:
    """Picture files, in their order. A file that can not be read is an error here: a set with holes is another set."""

    files: Sequence[Path]
    preparation: ImagePreparation
    description: dict[str, Any]
    """What to say about the choice of files."""

    @property
    def count(self) -> int:
        """How many."""
        return len(self.files)

    def read(self, numbers: range) -> PicturesRead | None:
        """All pictures of these numbers. Raises `UnreadableImageError` for one that can not be read."""
        files = [self.files[number] for number in numbers]
        if not files:
            return None
        return PicturesRead(
            images=torch.stack([self.preparation.prepared(file) for file in files]),
            numbers=torch.tensor(list(numbers)),
            digests=torch.stack([digest_of(file.read_bytes()) for file in files]),
        )

    def as_json(self) -> dict[str, Any]:
        """Kinds of files, how they were chosen and prepared."""
        kinds = Counter(file.suffix.lower().removeprefix(".") for file in self.files)
        return {**self.description, "file_kinds": dict(sorted(kinds.items())), **self.preparation.as_json()}

    def fingerprint(self) -> str:
        """Of names, sizes and times of the files."""
        return files_fingerprint(self.files)


def folder_pictures(
    folder: Path,
    preparation: ImagePreparation,
    *,
    num_images: int | None = None,
    seed: int = 0,
    only: Sequence[str] | None = None,
) -> FolderPictures:
    """The pictures in a folder; with `num_images` so many of them, chosen by `seed`; or `only` those of these names.

    Which are chosen follows from their names and the seed, on every machine. Raises `DataError` for a folder without
    pictures, fewer than asked for, or a name that is not there.
    """
    if not folder.is_dir():
        raise DataError(f"Expected a folder of pictures at {folder}, found none.")
    files = picture_files(folder)
    found = len(files)
    if only is not None:
        by_name = {file.name: file for file in files}
        missing = [name for name in dict.fromkeys(only) if name not in by_name]
        if missing:
            raise DataError(
                f"Expected the picture {missing[0]} in {folder}, found no such file ({len(missing)} of "
                f"{len(set(only))} are missing). Is it the folder of the split that the captions are of?"
            )
        files = [by_name[name] for name in sorted(set(only))]
    if num_images is not None:
        if len(files) < num_images:
            raise DataError(f"Expected at least {num_images} pictures in {folder}, found {len(files)}.")
        chosen = sorted(files, key=lambda file: hashlib.sha256(f"{seed}/{file.name}".encode()).digest())
        files = sorted(chosen[:num_images])
    if not files:
        raise DataError(f"Expected pictures in {folder}, found none.")
    description = {
        "source": "folder",
        "folder": folder.resolve().name,
        "num_in_folder": found,
        "chosen": "all" if num_images is None else f"{num_images} by seed {seed}",
        "only_captioned": only is not None,
    }
    return FolderPictures(files=files, preparation=preparation, description=description)


@attrs.frozen(kw_only=True, eq=False)
class DataPictures:
    """Pictures of a data set, which crops and resizes them in its own way."""

    data: EvaluationData
    items: NumberedItems
    image_size: tuple[int, int]

    @property
    def count(self) -> int:
        """Numbers there are, at most."""
        return self.items.count

    def read(self, numbers: range) -> PicturesRead | None:
        """Those of these pictures that can be read; None if there is none."""
        read = self.items.read(numbers)
        images = [one.item.image for one in read if isinstance(one.item, CaptionedImage)]
        if not images:
            return None
        return PicturesRead(
            images=torch.stack(images),
            numbers=torch.tensor([one.number for one in read]),
            digests=torch.stack([item_digest(one.item) for one in read]),
        )

    def as_json(self) -> dict[str, Any]:
        """Which data set, which of its items, and at what size."""
        return {"source": "data set", **self.data.as_json(), "image_size": list(self.image_size)}

    def fingerprint(self) -> str:
        """Nothing beyond what the description says: items of a data set are the same every time."""
        return ""
