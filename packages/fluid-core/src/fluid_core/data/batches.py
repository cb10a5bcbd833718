"""Batches of a data set, addressed by step, so that a resumed run sees exactly what it would have seen."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import attrs
import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.data.captioned_images import CaptionedImage, CaptionedImages, CaptionedStream, EpochVariants
from fluid_core.data.encoded_images import EncodedImage, EncodedImages, stack_encoded
from fluid_core.data.read_ahead import ReadAhead, ReadBatch
from fluid_core.data.skipped_items import SkippedItem
from fluid_core.data.stream_reading import first_items
from fluid_core.errors import DataError, InvalidRequestError, SkippedItemError
from fluid_core.exchange import BatchShare, EncodedBatch

_MAX_REPLACEMENTS = 100


@attrs.frozen(kw_only=True)
class ImageBatch:
    """Images in [-1, 1] with one caption each."""

    images: Float[Tensor, "batch 3 height width"]
    captions: tuple[str, ...]


class BatchLoader(ReadAhead[ImageBatch | EncodedBatch]):
    """Shuffled batches: batch `step` is a pure function of the data set, the batch size, the seed and the step.

    Every epoch passes through all items once in an order of its own. An item that can not be used is counted in
    `skipped` and replaced by the next of its epoch that can. The batch after the one asked for is read in the
    background. With `share`, only this process's rows of each batch are read. More than `max_skipped_share` of items
    left out ends the run. Raises `DataError` for a data set without items.
    """

    def __init__(
        self,
        dataset: CaptionedImages | EncodedImages,
        *,
        batch_size: int,
        seed: int,
        share: BatchShare | None = None,
        max_skipped_share: float = 1.0,
    ) -> None:
        if len(dataset) == 0:
            raise DataError("The data set is empty: expected at least one captioned image.")
        super().__init__(max_skipped_share=max_skipped_share)
        self._dataset = dataset
        self._batch_size = batch_size
        self._share = share or BatchShare(first=0, count=batch_size, total=batch_size)
        self._seed = seed
        self._epoch: tuple[int, list[int]] | None = None

    def items(self, step: int) -> list[int]:
        """Places in the data set of this process's rows of the batch of `step`, before replacements."""
        first = step * self._batch_size + self._share.first
        places = [divmod(position, len(self._dataset)) for position in range(first, first + self._share.count)]
        # Not the order at hand, which the thread that reads ahead may be about to replace.
        orders = {epoch: self._permutation(epoch) for epoch in {epoch for epoch, _ in places}}
        return [orders[epoch][offset] for epoch, offset in places]

    def state(self) -> None:
        """Nothing: the step says where reading stands."""

    def _read(self, step: int) -> ReadBatch[ImageBatch | EncodedBatch]:
        first = step * self._batch_size + self._share.first
        skipped: list[SkippedItem] = []
        try:
            items = [self._item(position, skipped) for position in range(first, first + self._share.count)]
        # Kept, not raised, so that what was skipped until then is counted and listed.
        except Exception as error:
            return ReadBatch(error=error, skipped=tuple(skipped), num_seen=len(skipped))
        return ReadBatch(batch=stack_items(items), skipped=tuple(skipped), num_seen=len(items) + len(skipped))

    def _item(self, position: int, skipped: list[SkippedItem]) -> CaptionedImage | EncodedImage:
        num_items = len(self._dataset)
        epoch, offset = divmod(position, num_items)
        order = self._order_of(epoch)
        tried: list[str] = []
        for attempt in range(min(num_items, _MAX_REPLACEMENTS)):
            # Along the shuffled order: damaged files often lie side by side in the data set.
            index = order[(offset + attempt) % num_items]
            try:
                if isinstance(self._dataset, EpochVariants):
                    return self._dataset.variant(index, epoch=epoch)
                return self._dataset[index]
            except SkippedItemError as error:
                skipped.append(SkippedItem.of(index, error))
                tried.append(str(error))
        reasons = "\n  ".join(tried[:5])
        raise DataError(
            f"Expected pictures that can be read, found {len(tried)} in a row that can not. Repair them or take "
            f"them out of the data set. Among them:\n  {reasons}"
        )

    def _order_of(self, epoch: int) -> list[int]:
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, self._permutation(epoch))
        return self._epoch[1]

    def _permutation(self, epoch: int) -> list[int]:
        generator = torch.Generator().manual_seed((self._seed * 1_000_003 + epoch) % 2**63)
        order: list[int] = torch.randperm(len(self._dataset), generator=generator).tolist()
        return order


def stack(items: Sequence[CaptionedImage]) -> ImageBatch:
    """One batch of several items of equal size."""
    return ImageBatch(
        images=torch.stack([item.image for item in items]), captions=tuple(item.caption for item in items)
    )


def stack_items(items: Sequence[CaptionedImage | EncodedImage]) -> ImageBatch | EncodedBatch:
    """One batch of several items, all of them pictures or all of them encoded."""
    pictures = [item for item in items if isinstance(item, CaptionedImage)]
    if pictures:
        return stack(pictures)
    return stack_encoded([item for item in items if isinstance(item, EncodedImage)])


Item = TypeVar("Item", CaptionedImage, EncodedImage)


@attrs.frozen(kw_only=True)
class ReadableItems(Generic[Item]):
    """Items of a data set, and what was skipped on the way."""

    items: tuple[Item, ...]
    skipped: tuple[SkippedItem, ...]


def readable_items(
    dataset: CaptionedImages | CaptionedStream | EncodedImages, count: int, *, shuffle_seed: int | None = None
) -> ReadableItems[Any]:
    """`count` items that can be used (fewer if the data set has fewer), for fitting and measuring.

    They are the first ones, or with `shuffle_seed` the first of an order drawn from it: a sorted data set begins with
    one kind of picture. A stream is then mixed as in training: by shards and a buffer. Raises `DataError` if not one
    can be used, and `InvalidRequestError` for a `count` below one.
    """
    if count < 1:
        raise InvalidRequestError(f"Expected a count of 1 or more, found {count}.")
    items: list[Any] = []
    skipped: list[SkippedItem] = []
    for item in items_in_order(dataset, shuffle_seed=shuffle_seed):
        if isinstance(item, SkippedItem):
            skipped.append(item)
            continue
        items.append(item)
        if len(items) == count:
            break
    if not items:
        reasons = "".join(f"\n  {one.reason}" for one in skipped[:5])
        raise DataError(
            f"Not one picture of the data set can be read: expected at least one, found {len(skipped)} that can "
            f"not. Repair them, or choose another data set.{reasons}"
        )
    return ReadableItems(items=tuple(items), skipped=tuple(skipped))


def items_in_order(
    dataset: CaptionedImages | CaptionedStream | EncodedImages, *, shuffle_seed: int | None = None
) -> Iterator[CaptionedImage | EncodedImage | SkippedItem]:
    """Every item once, or why it can not be used, in the order of the data set or in one drawn from the seed."""
    if isinstance(dataset, CaptionedStream):
        yield from first_items(dataset, shuffle_seed=shuffle_seed)
        return
    order: Iterable[int] = range(len(dataset))
    if shuffle_seed is not None:
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(shuffle_seed)).tolist()
    for index in order:
        try:
            yield dataset[index]
        except SkippedItemError as error:
            yield SkippedItem.of(index, error)
