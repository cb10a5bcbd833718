"""What all loaders share: a batch is read in the background before it is asked for, and skipped items are counted."""

from abc import ABC, abstractmethod
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar

import attrs

from fluid_core.data.skipped_items import SkippedItem, SkippedItems

Batch = TypeVar("Batch")


@attrs.frozen(kw_only=True)
class ReadBatch(Generic[Batch]):
    """What reading a batch came to: the batch or an error, and what was met on the way."""

    batch: Batch | None = None
    error: Exception | None = None
    skipped: tuple[SkippedItem, ...] = ()
    num_seen: int
    """Items looked at, skipped ones included."""

    position: Any = None
    """Where reading stands after this batch, for data that is read in sequence."""


class ReadAhead(ABC, Generic[Batch]):
    """Batches by step. Loaders say how one is read; here it happens in a thread, one batch ahead.

    What reading ahead skips is counted when its batch is handed out, so that the counts follow from the step.
    """

    def __init__(self, *, max_skipped_share: float = 1.0) -> None:
        self.skipped = SkippedItems(max_share=max_skipped_share)
        """Items left out in the batches handed out so far."""

        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._ahead: tuple[int, Future[ReadBatch[Batch]]] | None = None

    def batch(self, step: int) -> Batch:
        """The batch of training step `step` (from 0).

        Raises `DataError` if too many items in a row can not be used, and `TooManySkippedError` if their share is too
        large by now.
        """
        future = self._ahead[1] if self._ahead and self._ahead[0] == step else self._worker.submit(self._read, step)
        read = future.result()
        self.skipped.add(read.skipped, num_seen=read.num_seen)
        self.skipped.check()
        if read.error is not None:
            raise read.error
        assert read.batch is not None
        self._handed_out(read)
        self._ahead = (step + 1, self._worker.submit(self._read, step + 1))
        return read.batch

    def close(self) -> None:
        """Stop reading ahead."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    @abstractmethod
    def _read(self, step: int) -> ReadBatch[Batch]:
        """Read one batch. Runs in the background thread."""

    def _handed_out(self, read: ReadBatch[Batch]) -> None:
        """A batch leaves the loader."""
