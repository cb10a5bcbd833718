"""Data sets through Hugging Face's library `datasets`: from the Hub or local files, with random access or streamed."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

from fluid_core.data.captioned_images import CaptionedImage, StreamSample
from fluid_core.data.captioned_picture import captioned_picture, item_draw, validation_options, validation_rank
from fluid_core.data.optional_packages import data_package
from fluid_core.data.options import HuggingFaceDatasetOptions
from fluid_core.errors import ConfigurationError, DamagedShardError, DataError, UnreadableImageError
from fluid_core.exchange import DatasetContext

_SAVED = ("state.json", "dataset_dict.json")
_FORMATS = {".parquet": "parquet", ".arrow": "arrow", ".json": "json", ".jsonl": "json"}


class _Rows:
    """What both forms share: the options of one split, and an item from a row."""

    def __init__(self, options: HuggingFaceDatasetOptions, image_size: tuple[int, int], split: str, seed: int) -> None:
        self.options = options if split == "train" else validation_options(options)
        self.image_size = image_size
        self.split = split
        self.seed = seed
        if split == "validation" and options.validation_split is None and options.validation_fraction == 0:
            raise ConfigurationError(
                "A validation split was asked for, but validation_fraction is 0. Set it above 0, or set "
                "validation_split."
            )
        self._by_hash = options.validation_split is None
        self._source = _opened(options, options.validation_split if split == "validation" else None)

    def _belongs(self, key: str) -> bool:
        """Whether the row `key` is in this split."""
        if not self._by_hash:
            return True
        return (validation_rank(key) < self.options.validation_fraction) == (self.split == "validation")

    def _item(self, row: dict[str, Any], name: str, *, epoch: int, key: str, mirrored: bool | None) -> CaptionedImage:
        draw = item_draw(self.seed, epoch if self.split == "train" else 0, key)
        return captioned_picture(
            _picture(row.get(self.options.image_column), name, self.options),
            {column: row.get(column) for column in self.options.caption_shares},
            name=name,
            options=self.options,
            image_size=self.image_size,
            draw=draw,
            mirrored=self.options.horizontal_flip and draw.mirrored if mirrored is None else mirrored,
        )


class HuggingFaceImages(_Rows):
    """A data set on disk, in the library's own storage. A `CaptionedImages` with `EpochVariants`.

    Which split a row belongs to follows from a hash of its number, unless a split of its own is given for validation.
    Raises `DataError` for a source that can not be opened, lacks a column or leaves a split empty,
    `ConfigurationError` for a validation split of nothing, and `MissingPackageError` without the library.
    """

    def __init__(
        self, options: HuggingFaceDatasetOptions, image_size: tuple[int, int], split: str, *, seed: int = 0
    ) -> None:
        super().__init__(options, image_size, split, seed)
        self._numbers = [number for number in range(len(self._source)) if self._belongs(str(number))]
        if not self._numbers:
            raise DataError(
                f"The {split} split of {options.path} is empty: of {len(self._source)} rows, chosen by "
                f"validation_fraction = {options.validation_fraction}, none is in it. Set validation_split, or take "
                "another fraction."
            )
        self._num_copies = 2 if self.options.horizontal_flip else 1

    @property
    def varies(self) -> bool:
        """Whether crops or captions may be drawn anew in every epoch; columns of lists are taken to hold several."""
        if self.split != "train":
            return False
        return self.options.varies or any(_holds_lists(self._source, name) for name in self.options.caption_shares)

    def __len__(self) -> int:
        """Number of items: one for each row, twice that if mirrored copies are wanted."""
        return self._num_copies * len(self._numbers)

    def __getitem__(self, index: int) -> CaptionedImage:
        """Item `index` as it looks in the first epoch.

        Raises `IndexError` outside 0 ... len - 1, and `SkippedItemError` for an item that can not be used.
        """
        return self.variant(index, epoch=0)

    def variant(self, index: int, *, epoch: int) -> CaptionedImage:
        """Item `index` as it looks in `epoch`. Raises as `dataset[index]` does."""
        if not 0 <= index < len(self):
            raise IndexError(f"The {self.split} split has the items 0 to {len(self) - 1}, asked for {index}.")
        copy, place = divmod(index, len(self._numbers))
        number = self._numbers[place]
        name = f"of row {number} of {self.options.path}"
        return self._item(self._source[number], name, epoch=epoch, key=str(index), mirrored=copy == 1)


class HuggingFaceStream(_Rows):
    """A data set read from its source as it comes. A `CaptionedStream`; its shards are those of the library.

    Which split a row belongs to follows from a hash of its shard and number, unless a split of its own is given for
    validation. Raises as `HuggingFaceImages` does.
    """

    def __init__(
        self, options: HuggingFaceDatasetOptions, image_size: tuple[int, int], split: str, *, seed: int = 0
    ) -> None:
        super().__init__(options, image_size, split, seed)
        self.shuffle_buffer = options.shuffle_buffer

    @property
    def num_shards(self) -> int:
        """Number of files or parts that can be read apart."""
        return int(self._source.num_shards)

    @property
    def varies(self) -> bool:
        """Whether crops, captions or mirroring may be drawn anew in every epoch."""
        if self.split != "train":
            return False
        lists = any(_holds_lists(self._source, name) for name in self.options.caption_shares)
        return self.options.varies or self.options.horizontal_flip or lists

    def samples(self, shard: int) -> Iterator[StreamSample]:
        """The rows of a shard. Raises `IndexError`, and `DamagedShardError` where it can not be read on."""
        if not 0 <= shard < self.num_shards:
            raise IndexError(f"The stream has the shards 0 to {self.num_shards - 1}, asked for {shard}.")
        number = 0
        try:
            for number, row in enumerate(self._source.shard(num_shards=self.num_shards, index=shard), start=1):
                key = f"{shard}/{number - 1}"
                if self._belongs(key):
                    yield StreamSample(key=key, content=row)
        # Damaged files and failed transfers end in almost any error.
        except Exception as error:
            raise DamagedShardError(
                f"Shard {shard} of {self.options.path} breaks off after {number} rows: {error}."
            ) from error

    def item(self, sample: StreamSample, *, epoch: int) -> CaptionedImage:
        """The picture and caption of a row. Raises `SkippedItemError` if it can not be used."""
        name = f"of row {sample.key} of {self.options.path}"
        return self._item(sample.content, name, epoch=epoch, key=sample.key, mirrored=None)


def _opened(options: HuggingFaceDatasetOptions, validation_split: str | None) -> Any:
    """The source with its pictures left as bytes. Raises `DataError`, and `MissingPackageError` without the library."""
    datasets = data_package("datasets", "hf-dataset")
    split = validation_split or options.split
    try:
        source = _loaded(datasets, options, split)
    # The library's errors share no class: missing files, no network, unknown splits and bad formats all differ.
    except Exception as error:
        raise DataError(
            f"Could not open the split '{split}' of the data set {options.path}: {error} Check the options 'path', "
            "'name', 'data_files' and 'split'; a data set on the Hub needs a network connection or a copy on disk."
        ) from error
    columns = source.column_names
    if columns is None:
        source = source._resolve_features()
        columns = source.column_names
    wanted = [options.image_column, *options.caption_shares]
    missing = [name for name in (options.image_column,) if name not in columns]
    if not any(name in columns for name in options.caption_shares):
        missing += list(options.caption_shares)
    if missing:
        raise DataError(
            f"Expected the columns {', '.join(wanted)} in {options.path}, found {', '.join(sorted(columns))}. Set the "
            "options 'image_column' and 'caption_column' or 'captions'."
        )
    # Other columns would only take memory, in streams thousands of times over.
    source = source.select_columns([name for name in wanted if name in columns])
    return source.cast_column(options.image_column, datasets.Image(decode=False))


def _loaded(datasets: Any, options: HuggingFaceDatasetOptions, split: str) -> Any:
    folder = Path(options.path).expanduser()
    if any((folder / name).is_file() for name in _SAVED):
        saved = datasets.load_from_disk(str(folder))
        source = saved[split] if (folder / "dataset_dict.json").is_file() else saved
        return source.to_iterable_dataset(num_shards=_num_files(source)) if options.streaming else source
    files = options.data_files
    path = str(folder) if folder.exists() else options.path
    if folder.is_file() and files is None:
        if folder.suffix not in _FORMATS:
            raise ValueError(f"expected a file ending in {', '.join(_FORMATS)}, found {folder.name}.")
        path, files = _FORMATS[folder.suffix], str(folder)
    return datasets.load_dataset(
        path,
        options.name,
        data_files=list(files) if isinstance(files, tuple) else files,
        split=split,
        revision=options.revision,
        streaming=options.streaming,
        cache_dir=options.cache_dir,
    )


def _num_files(source: Any) -> int:
    return max(1, len(source.cache_files))


def _holds_lists(source: Any, column: str) -> bool:
    feature = (source.features or {}).get(column)
    return feature is not None and not isinstance(feature, data_package("datasets", "hf-dataset").Value)


def _picture(value: Any, name: str, options: HuggingFaceDatasetOptions) -> Path | bytes:
    """The bytes of a picture, or the file they are in; relative names are taken from the folder of the data set."""
    if isinstance(value, dict):
        if value.get("bytes"):
            return bytes(value["bytes"])
        if value.get("path"):
            path = Path(value["path"])
            folder = Path(options.path).expanduser()
            return path if path.is_absolute() or path.is_file() or not folder.is_dir() else folder / path
    raise UnreadableImageError(f"There is no picture in the column '{options.image_column}' {name}.")


def build_hugging_face_dataset(
    options: HuggingFaceDatasetOptions, context: DatasetContext
) -> HuggingFaceImages | HuggingFaceStream:
    """Build the data set for a run, as a stream if it is streamed. Raises as `HuggingFaceImages` does."""
    form = HuggingFaceStream if options.streaming else HuggingFaceImages
    return form(options, context.image_size, context.split, seed=context.seed)


def example_hugging_face_options(folder: Path) -> HuggingFaceDatasetOptions:
    """Options of a folder of twelve plain pictures with `metadata.jsonl`, which are written to `folder`, for tests."""
    colours = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "white", "black", "gray", "brown", "pink")
    pictures = folder / "pictures"
    pictures.mkdir(exist_ok=True)
    lines = []
    for index, colour in enumerate(colours):
        Image.new("RGB", (48, 40 + 8 * (index % 2)), colour).save(pictures / f"{index:04d}.png")
        lines.append(json.dumps({"file_name": f"{index:04d}.png", "text": f"a {colour} wall"}) + "\n")
    (pictures / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    return HuggingFaceDatasetOptions(path=str(pictures), cache_dir=str(folder / "cache"), validation_fraction=0.3)
