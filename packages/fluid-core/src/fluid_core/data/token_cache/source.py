"""The data set that is encoded, cut into pieces that become one shard each: the same pieces whenever it is read."""

from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, count, islice

import attrs

from fluid_core.data.captioned_images import CaptionedImage, CaptionedImages, CaptionedStream, EpochVariants
from fluid_core.data.skipped_items import SkippedItem
from fluid_core.errors import SkippedItemError


@attrs.frozen(kw_only=True)
class SourceItem:
    """An item before it is read. `read` raises `SkippedItemError` if it can not be used."""

    key: str
    """Its index, or its key in a stream."""

    read: Callable[[], CaptionedImage]


@attrs.frozen(kw_only=True, eq=False)
class Piece:
    """What one shard is made of. The items can be passed through once."""

    file: str
    items: Iterator[SourceItem]
    num_items: int | None
    """None for a stream, which does not know before its end."""


class Source:
    """One split of a data set, with random access or as a stream.

    `items_per_shard` is the size of a piece; a shard of a stream is cut into pieces of that size, the last one shorter.
    """

    def __init__(self, dataset: CaptionedImages | CaptionedStream, split: str) -> None:
        self._dataset = dataset
        self.split = split
        self.damaged_shards: dict[int, SkippedItem] = {}
        """Shards of a stream that broke off, among those read so far."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width, in pixels."""
        return self._dataset.image_size

    @property
    def num_items(self) -> int | None:
        """How many items there are; None for a stream."""
        return None if isinstance(self._dataset, CaptionedStream) else len(self._dataset)

    @property
    def varies(self) -> bool:
        """Whether items look different in every epoch, of which a cache keeps the first."""
        return isinstance(self._dataset, EpochVariants | CaptionedStream) and self._dataset.varies

    def about_how_many(self) -> int:
        """The number of items; for a stream that of its first shard times the number of shards."""
        if not isinstance(self._dataset, CaptionedStream):
            return len(self._dataset)
        return sum(1 for _ in self._stream_items(self._dataset, 0)) * self._dataset.num_shards

    def examples(self, num_items: int) -> Iterator[SourceItem]:
        """Up to `num_items` items to measure: spread evenly, or the first ones of a stream."""
        if isinstance(self._dataset, CaptionedStream):
            yield from islice(self._stream_items(self._dataset, 0), num_items)
            return
        total = len(self._dataset)
        for position in range(min(num_items, total)):
            index = position * total // min(num_items, total)
            yield SourceItem(key=str(index), read=partial(self._dataset.__getitem__, index))

    def pieces(self, items_per_shard: int) -> Iterator[Piece]:
        """All pieces in their order. What is left of a piece when the next one is asked for is passed over."""
        if isinstance(self._dataset, CaptionedStream):
            yield from self._pieces_of_stream(self._dataset, items_per_shard)
            return
        total = len(self._dataset)
        for number, first in enumerate(range(0, total, items_per_shard)):
            indices = range(first, min(first + items_per_shard, total))
            items = (SourceItem(key=str(i), read=partial(self._dataset.__getitem__, i)) for i in indices)
            yield Piece(file=f"{self.split}-{number:05d}.safetensors", items=items, num_items=len(indices))

    def _pieces_of_stream(self, stream: CaptionedStream, items_per_shard: int) -> Iterator[Piece]:
        for shard in range(stream.num_shards):
            items = self._stream_items(stream, shard)
            for number in count():
                first = next(items, None)
                if first is None:
                    break
                piece = chain([first], islice(items, items_per_shard - 1))
                yield Piece(file=f"{self.split}-{shard:05d}-{number:03d}.safetensors", items=piece, num_items=None)
                deque(piece, maxlen=0)

    def _stream_items(self, stream: CaptionedStream, shard: int) -> Iterator[SourceItem]:
        try:
            for sample in stream.samples(shard):
                yield SourceItem(key=sample.key, read=partial(stream.item, sample, epoch=0))
        except SkippedItemError as error:
            self.damaged_shards[shard] = SkippedItem.of(f"shard {shard}", error)
