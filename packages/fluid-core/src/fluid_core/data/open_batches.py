"""The loader that fits a data set: by index where it has one, in sequence where it is a stream."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from fluid_core.data.batches import BatchLoader, ImageBatch
from fluid_core.data.captioned_images import CaptionedImages, CaptionedStream
from fluid_core.data.encoded_images import EncodedImages
from fluid_core.data.skipped_items import SkippedItems
from fluid_core.data.stream_batches import StreamLoader
from fluid_core.exchange import BatchShare, EncodedBatch


@runtime_checkable
class Batches(Protocol):
    """What a training loop needs of a loader."""

    @property
    def skipped(self) -> SkippedItems:
        """Items left out in the batches handed out so far."""

    def batch(self, step: int) -> ImageBatch | EncodedBatch:
        """This process's rows of the batch of `step` (from 0); steps come one after the other."""

    def items(self, step: int) -> list[int] | None:
        """Places in the data set of this process's rows of the batch of `step`; None for a stream, which has none.

        An item that could not be used counts as itself, not as the one that came in its place.
        """

    def state(self) -> Any:
        """What a checkpoint must keep besides the step, as JSON can hold it; None if the step is enough."""

    def close(self) -> None:
        """Stop reading ahead."""


def open_batches(
    dataset: CaptionedImages | CaptionedStream | EncodedImages,
    *,
    batch_size: int,
    seed: int,
    share: BatchShare | None = None,
    state: Sequence[Any] | None = None,
    max_skipped_share: float = 1.0,
) -> Batches:
    """Open a data set for training.

    `share` is the part of each batch that this process takes, all of it by default. `state` holds what `state()` of
    the loaders of all processes gave, in the order of the processes, for a run that goes on. `max_skipped_share` is
    the share of items, of at least 200 seen, that may be left out. Raises `DataError` for a data set without items
    or with fewer shards than processes, and as `restored_position` does for a `state` of another stream.
    """
    if isinstance(dataset, CaptionedStream):
        return StreamLoader(
            dataset, batch_size=batch_size, seed=seed, share=share, state=state, max_skipped_share=max_skipped_share
        )
    return BatchLoader(dataset, batch_size=batch_size, seed=seed, share=share, max_skipped_share=max_skipped_share)
