"""Items of a data set by number, in an order drawn from a seed, for measuring parts of it apart from each other."""

from collections.abc import Iterator, Sequence

import attrs
import torch

from fluid_core.data.batches import items_in_order
from fluid_core.data.captioned_images import CaptionedImage, CaptionedImages, CaptionedStream
from fluid_core.data.encoded_images import EncodedImage, EncodedImages
from fluid_core.data.skipped_items import SkippedItem
from fluid_core.errors import InvalidRequestError, SkippedItemError

Item = CaptionedImage | EncodedImage


@attrs.frozen(kw_only=True)
class NumberedItem:
    """An item that can be used, and its number."""

    number: int
    item: Item


class NumberedItems:
    """The first `count` items of a data set (fewer if it has fewer) in the order of `items_in_order`.

    A number stands for the same item in every process and at every call, whatever was read before; one that can not be
    used leaves its number empty. Of a stream, what lies between is read and passed over, so ask for rising numbers.
    Raises `InvalidRequestError` for a `count` below one.
    """

    def __init__(
        self,
        dataset: CaptionedImages | CaptionedStream | EncodedImages,
        count: int,
        *,
        shuffle_seed: int | None = None,
    ) -> None:
        if count < 1:
            raise InvalidRequestError(f"Expected a count of 1 or more, found {count}.")
        self._dataset = dataset
        self._shuffle_seed = shuffle_seed
        self._order: Sequence[int] | None = None
        if not isinstance(dataset, CaptionedStream):
            count = min(count, len(dataset))
            self._order = range(len(dataset))
            if shuffle_seed is not None:
                generator = torch.Generator().manual_seed(shuffle_seed)
                self._order = torch.randperm(len(dataset), generator=generator).tolist()
        self.count = count
        """Numbers there are, at most: nobody knows how long a stream is."""

        self._stream: Iterator[Item | SkippedItem] | None = None
        self._next = 0

    def read(self, numbers: range) -> list[NumberedItem]:
        """The items of these numbers that can be used; a stream that ends has none beyond."""
        if self._order is None:
            return self._from_stream(numbers)
        found = []
        for number in numbers:
            try:
                item = self._dataset[self._order[number]]  # type: ignore[index]
            except SkippedItemError:
                continue
            found.append(NumberedItem(number=number, item=item))
        return found

    def _from_stream(self, numbers: range) -> list[NumberedItem]:
        if self._stream is None or self._next > numbers.start:
            self._stream = items_in_order(self._dataset, shuffle_seed=self._shuffle_seed)
            self._next = 0
        found = []
        while self._next < numbers.stop:
            item = next(self._stream, None)
            if item is None:
                break
            if self._next in numbers and not isinstance(item, SkippedItem):
                found.append(NumberedItem(number=self._next, item=item))
            self._next += 1
        return found
