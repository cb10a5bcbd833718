"""Batches of a stream, one after the other, from a position that a checkpoint can keep."""

from collections.abc import Sequence
from typing import Any

import attrs

from fluid_core.data.batches import ImageBatch, stack
from fluid_core.data.captioned_images import CaptionedImage, CaptionedStream
from fluid_core.data.read_ahead import ReadAhead, ReadBatch
from fluid_core.data.skipped_items import SkippedItem
from fluid_core.data.stream_reading import StreamPosition, StreamReader, restored_position
from fluid_core.errors import DataError, InvalidRequestError
from fluid_core.exchange import BatchShare

_MOST_IN_A_ROW = 1000
_NUM_SHOWN = 5


class StreamLoader(ReadAhead[ImageBatch]):
    """Shuffled batches of a stream. Steps must come one after the other, from any first one.

    Each process of a run reads shards of its own and fills its own rows of the batch. `state` holds what `state()` gave
    in every process of a run before: reading goes on at the beginning of the shards that were not delivered whole, so
    that some images are seen again and none is lost.

    Raises `DataError` if there are fewer shards than processes, and for `state` as `restored_position` does.
    """

    def __init__(
        self,
        stream: CaptionedStream,
        *,
        batch_size: int,
        seed: int,
        share: BatchShare | None = None,
        state: Sequence[Any] | None = None,
        max_skipped_share: float = 1.0,
    ) -> None:
        super().__init__(max_skipped_share=max_skipped_share)
        share = share or BatchShare(first=0, count=batch_size, total=batch_size)
        places = {"process": share.process, "num_processes": share.num_processes}
        reader = StreamReader(
            stream,
            seed=seed,
            position=restored_position(state or (), num_shards=stream.num_shards, **places),
            **places,
        )
        self._count = share.count
        self._reader, self._items = reader, iter(reader)
        self._position: StreamPosition = reader.position
        self._next_step: int | None = None

    def batch(self, step: int) -> ImageBatch:
        """The next batch, of training step `step`.

        Raises `InvalidRequestError` unless `step` follows the one before, and as `ReadAhead.batch` does.
        """
        if self._next_step not in (None, step):
            raise InvalidRequestError(
                f"A stream is read in sequence: expected to be asked for step {self._next_step}, found {step}."
            )
        batch = super().batch(step)
        self._next_step = step + 1
        return batch

    def items(self, step: int) -> None:
        """Nothing: what a stream delivers has no place in it."""

    def state(self) -> dict[str, Any]:
        """Where this process stands after the last batch handed out, as JSON can hold it."""
        return {**attrs.asdict(self._position), "shards": list(self._position.shards)}

    def _handed_out(self, read: ReadBatch[ImageBatch]) -> None:
        self._position = read.position

    def _read(self, step: int) -> ReadBatch[ImageBatch]:  # noqa: ARG002
        items: list[CaptionedImage] = []
        skipped: list[SkippedItem] = []
        num_in_a_row = 0
        error: Exception | None = None
        try:
            while len(items) < self._count:
                item = next(self._items)
                if not isinstance(item, SkippedItem):
                    items.append(item)
                    num_in_a_row = 0
                    continue
                skipped.append(item)
                num_in_a_row += 1
                if num_in_a_row == _MOST_IN_A_ROW:
                    raise DataError(_too_many_in_a_row(skipped))
        # Kept, not raised, so that what was skipped until then is counted and listed.
        except Exception as caught:
            error = caught
        return ReadBatch(
            batch=None if error else stack(items),
            error=error,
            skipped=tuple(skipped),
            num_seen=len(items) + len(skipped),
            position=self._reader.position,
        )


def _too_many_in_a_row(skipped: Sequence[SkippedItem]) -> str:
    shown = "".join(f"\n  {one.reason}" for one in skipped[-_NUM_SHOWN:])
    return (
        f"Expected items that can be used, found {_MOST_IN_A_ROW} in a row that can not. Repair them, check the "
        f"options that name their columns, or take them out of the data set. The last of them:{shown}"
    )
