"""Tar files of pictures and captions, read in sequence, in the layout that img2dataset writes.

    00000.tar
      000000000.jpg
      000000000.txt       a cat on a sofa
      000000000.json      {"caption": "a cat on a sofa", "url": ...}

Files with the same name up to the first dot are one sample. Reading tar files, patterns of names, URLs and pipes is
what the library webdataset does.
"""

import glob
import io
import json
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from fluid_core.atomic_files import write_bytes
from fluid_core.data.captioned_images import CaptionedImage, StreamSample
from fluid_core.data.captioned_picture import captioned_picture, item_draw, validation_options, validation_rank
from fluid_core.data.optional_packages import data_package
from fluid_core.data.options import WebDatasetOptions
from fluid_core.errors import ConfigurationError, DamagedShardError, DataError, UnreadableImageError
from fluid_core.exchange import DatasetContext


class WebDatasetStream:
    """Captioned pictures in tar files. A `CaptionedStream`; its shards are the files.

    Which split a sample belongs to follows from a hash of its shard's name and its own, unless shards of their own
    are given for validation. Raises `DataError` if no shard matches, `ConfigurationError` for a validation split of
    nothing or shards that are in both splits, and `MissingPackageError` without the library webdataset.
    """

    def __init__(self, options: WebDatasetOptions, image_size: tuple[int, int], split: str, *, seed: int = 0) -> None:
        data_package("webdataset", "webdataset")
        self.options = options if split == "train" else validation_options(options)
        self.image_size = image_size
        self.split = split
        self.seed = seed
        self.shuffle_buffer = options.shuffle_buffer
        train = expanded_shards(options.path)
        validation = None if options.validation_path is None else expanded_shards(options.validation_path)
        if both := sorted(set(train) & set(validation or ())):
            raise ConfigurationError(
                f"Expected other shards in validation_path than in path, found {len(both)} in both, such as {both[0]}."
            )
        if split == "validation" and validation is None and options.validation_fraction == 0:
            raise ConfigurationError(
                "A validation split was asked for, but validation_fraction is 0. Set it above 0, or set "
                "validation_path."
            )
        self._by_hash = validation is None
        self.shards: tuple[str, ...] = validation if split == "validation" and validation is not None else train
        """Files, URLs and commands, in order."""

    @property
    def num_shards(self) -> int:
        """Number of tar files."""
        return len(self.shards)

    @property
    def varies(self) -> bool:
        """Whether crops, captions or mirroring are drawn anew in every epoch.

        That the json of a sample may hold a list of captions, of which one is drawn, is not known before it is read.
        """
        return self.split == "train" and (self.options.varies or self.options.horizontal_flip)

    def samples(self, shard: int) -> Iterator[StreamSample]:
        """The samples of a tar file. Raises `IndexError`, and `DamagedShardError` where the file breaks off."""
        if not 0 <= shard < len(self.shards):
            raise IndexError(f"The stream has the shards 0 to {len(self.shards) - 1}, asked for {shard}.")
        url = self.shards[shard]
        name = url.rpartition("/")[2]
        seen = 0
        try:
            for files in _samples_in(url):
                seen += 1
                key = f"{name}/{files['__key__']}"
                if self._by_hash and self._is_validation(key) != (self.split == "validation"):
                    continue
                yield StreamSample(key=key, content=files)
        # Damaged files, failed transfers and commands end in almost any error.
        except Exception as error:
            cause = str(error.args[0]) if error.args else type(error).__name__
            raise DamagedShardError(f"The shard {url} breaks off after {seen} samples: {cause}.") from error

    def item(self, sample: StreamSample, *, epoch: int) -> CaptionedImage:
        """The picture and caption of a sample. Raises `SkippedItemError` if it can not be used."""
        files: dict[str, Any] = sample.content
        picture = next((files[end] for end in _alternatives(self.options.image_column) if end in files), None)
        if picture is None:
            found = ", ".join(sorted(end for end in files if not end.startswith("__"))) or "nothing"
            raise UnreadableImageError(
                f"The sample {sample.key} has no picture: expected a file ending in {self.options.image_column}, "
                f"found {found}."
            )
        draw = item_draw(self.seed, epoch if self.split == "train" else 0, sample.key)
        return captioned_picture(
            picture,
            {column: _caption(files, column) for column in self.options.caption_shares},
            name=sample.key,
            options=self.options,
            image_size=self.image_size,
            draw=draw,
            mirrored=self.options.horizontal_flip and draw.mirrored,
        )

    def _is_validation(self, key: str) -> bool:
        return validation_rank(key) < self.options.validation_fraction


def expanded_shards(path: str | tuple[str, ...]) -> tuple[str, ...]:
    """The shards that a path, pattern, URL or list of them stands for, each once, sorted where a folder or `*` is.

    Raises `DataError` if one of them stands for nothing, or a local file is missing.
    """
    shardlists = data_package("webdataset.shardlists", "webdataset")
    found: dict[str, None] = {}
    for pattern in (path,) if isinstance(path, str) else path:
        if pattern.startswith("pipe:") or "://" in pattern:
            # Commands hold braces and colons of their own unless they name a range of shards.
            found |= dict.fromkeys(shardlists.expand_urls(pattern))
            continue
        local = str(Path(pattern).expanduser())
        for name in shardlists.expand_urls(local):
            found |= dict.fromkeys(_local_shards(name, pattern))
    return tuple(found)


def _local_shards(name: str, pattern: str) -> list[str]:
    if Path(name).is_dir():
        inside = sorted(str(file) for file in Path(name).glob("*.tar"))
        if not inside:
            raise DataError(f"Expected tar files in the folder {name}, found none. Check the option 'path'.")
        return inside
    if Path(name).is_file():
        return [name]
    matching = sorted(glob.glob(name))
    if not matching:
        raise DataError(
            f"No shard matches '{pattern}': expected tar files, found nothing at {name}. Check the option 'path'; a "
            "range of shards is written as {00000..00099}."
        )
    return matching


def _samples_in(url: str) -> Iterator[dict[str, Any]]:
    """The samples of one tar file, closed when the last one was taken or nobody asks for more."""
    tariterators = data_package("webdataset.tariterators", "webdataset")
    stream = data_package("webdataset.gopen", "webdataset").gopen(url)
    try:
        watched = _WatchedEnd(stream)
        files = tariterators.tar_file_expander([{"url": url, "stream": watched}])
        yield from tariterators.group_by_keys(files)
        # Where a file is cut between two entries, tarfile takes that for its end.
        if watched.is_cut:
            raise tarfile.ReadError("the file ends before the archive does")
    finally:
        # A command that is stopped before its end reports a failure of its own.
        with suppress(Exception):
            stream.close()


class _WatchedEnd:
    """Reads a tar file and knows whether it ended with the empty block that ends an archive."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._is_tar: bool | None = None
        self._tail = b""

    def read(self, size: int = -1) -> bytes:
        """The next bytes, as the stream gives them."""
        data: bytes = self._stream.read(size)
        if self._is_tar is None:
            # A compressed one is not known by its end, but decompression complains where it is cut.
            self._is_tar = data[257:262] == b"ustar"
        self._tail = (self._tail + data)[-tarfile.BLOCKSIZE :]
        return data

    @property
    def is_cut(self) -> bool:
        """Whether what was read so far is a tar file without its end."""
        return bool(self._is_tar) and self._tail != bytes(tarfile.BLOCKSIZE)


def _caption(files: dict[str, Any], column: str) -> Any:
    """What stands under the first alternative of `column` that is there: a file with that ending, or a key of json."""
    document: Any = None
    for name in _alternatives(column):
        if name in files:
            return files[name].decode("utf-8", "replace").strip()
        if document is None:
            document = _json(files.get("json"))
        if name in document:
            return document[name]
    return None


def _json(content: bytes | None) -> dict[str, Any]:
    try:
        document = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _alternatives(column: str) -> list[str]:
    return [name.strip() for name in column.split(";") if name.strip()]


def build_webdataset(options: WebDatasetOptions, context: DatasetContext) -> WebDatasetStream:
    """Build the data set for a run. Raises as `WebDatasetStream` does."""
    return WebDatasetStream(options, context.image_size, context.split, seed=context.seed)


def example_webdataset_options(folder: Path) -> WebDatasetOptions:
    """Options of a stream of three small shards, twelve plain pictures in all, which are written to `folder`."""
    colours = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white", "black", "gray", "brown", "pink")
    for shard in range(3):
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w") as archive:
            for place, colour in enumerate(colours[4 * shard : 4 * shard + 4]):
                picture = io.BytesIO()
                Image.new("RGB", (48, 40 + 8 * (place % 2)), colour).save(picture, "PNG")
                key = f"{shard:05d}{place:04d}"
                _add(archive, f"{key}.png", picture.getvalue())
                _add(archive, f"{key}.txt", f"a {colour} wall".encode())
        write_bytes(folder / f"{shard:05d}.tar", content.getvalue())
    return WebDatasetOptions(path=str(folder), validation_fraction=0.3)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
