"""Batches of a data set, addressed by step, so that a resumed run sees exactly what it would have seen."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import attrs
import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.data.captioned_images import CaptionedImage, CaptionedImages
from fluid_core.errors import DataError, InvalidRequestError, UnreadableImageError

_MAX_REPLACEMENTS = 100


@attrs.frozen(kw_only=True)
class ImageBatch:
    """Images in [-1, 1] with one caption each."""

    images: Float[Tensor, "batch 3 height width"]
    captions: tuple[str, ...]


class BatchLoader:
    """Shuffled batches: batch `step` is a pure function of the data set, the batch size, the seed and the step.

    Every epoch passes through all items once in an order of its own. A picture that can not be read is counted in
    `unreadable` and replaced by the next of its epoch that can. The batch after the one asked for is read in the
    background. Raises `DataError` for a data set without items.
    """

    def __init__(self, dataset: CaptionedImages, *, batch_size: int, seed: int) -> None:
        if len(dataset) == 0:
            raise DataError("The data set is empty: expected at least one captioned image.")
        self.unreadable: dict[int, str] = {}
        """Reason for each item that could not be read in the batches handed out so far, by index."""

        self._dataset = dataset
        self._batch_size = batch_size
        self._seed = seed
        self._epoch: tuple[int, list[int]] | None = None
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._ahead: tuple[int, Future[tuple[ImageBatch, dict[int, str]]]] | None = None

    def batch(self, step: int) -> ImageBatch:
        """The batch of training step `step` (from 0). Raises `DataError` if too many pictures can not be read."""
        future = self._ahead[1] if self._ahead and self._ahead[0] == step else self._worker.submit(self._read, step)
        batch, unreadable = future.result()
        self.unreadable |= unreadable
        self._ahead = (step + 1, self._worker.submit(self._read, step + 1))
        return batch

    def close(self) -> None:
        """Stop reading ahead."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _read(self, step: int) -> tuple[ImageBatch, dict[int, str]]:
        """A batch, and why items it met on the way could not be read. Runs in the background thread."""
        first = step * self._batch_size
        unreadable: dict[int, str] = {}
        items = [self._item(position, unreadable) for position in range(first, first + self._batch_size)]
        return stack(items), unreadable

    def _item(self, position: int, unreadable: dict[int, str]) -> CaptionedImage:
        num_items = len(self._dataset)
        epoch, offset = divmod(position, num_items)
        order = self._order_of(epoch)
        for attempt in range(min(num_items, _MAX_REPLACEMENTS)):
            # Along the shuffled order: damaged files often lie side by side in the data set.
            index = order[(offset + attempt) % num_items]
            try:
                return self._dataset[index]
            except UnreadableImageError as error:
                unreadable[index] = str(error)
        reasons = "\n  ".join(list(unreadable.values())[:5])
        raise DataError(
            f"Expected pictures that can be read, found {len(unreadable)} in a row that can not. Repair them or take "
            f"them out of the data set. Among them:\n  {reasons}"
        )

    def _order_of(self, epoch: int) -> list[int]:
        if self._epoch is None or self._epoch[0] != epoch:
            generator = torch.Generator().manual_seed((self._seed * 1_000_003 + epoch) % 2**63)
            self._epoch = (epoch, torch.randperm(len(self._dataset), generator=generator).tolist())
        return self._epoch[1]


def stack(items: Sequence[CaptionedImage]) -> ImageBatch:
    """One batch of several items of equal size."""
    return ImageBatch(
        images=torch.stack([item.image for item in items]), captions=tuple(item.caption for item in items)
    )


@attrs.frozen(kw_only=True)
class ReadableItems:
    """Items of a data set, and the reason for each one that was skipped on the way, by index."""

    items: tuple[CaptionedImage, ...]
    unreadable: dict[int, str]


def readable_items(dataset: CaptionedImages, count: int, *, shuffle_seed: int | None = None) -> ReadableItems:
    """`count` items that can be read (fewer if the data set has fewer), for fitting and measuring.

    They are the first ones, or with `shuffle_seed` the first of an order drawn from it: a sorted data set begins with
    one kind of picture. Raises `DataError` if not one can be read, and `InvalidRequestError` for a `count` below one.
    """
    if count < 1:
        raise InvalidRequestError(f"Expected a count of 1 or more, found {count}.")
    order: Iterable[int] = range(len(dataset))
    if shuffle_seed is not None:
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(shuffle_seed)).tolist()
    items: list[CaptionedImage] = []
    unreadable: dict[int, str] = {}
    for index in order:
        if len(items) == count:
            break
        try:
            items.append(dataset[index])
        except UnreadableImageError as error:
            unreadable[index] = str(error)
    if not items:
        reasons = "".join(f"\n  {reason}" for reason in list(unreadable.values())[:5])
        raise DataError(
            f"Not one picture of the data set can be read: expected at least one, found {len(unreadable)} that can "
            f"not. Repair them, or choose another data set.{reasons}"
        )
    return ReadableItems(items=tuple(items), unreadable=unreadable)
