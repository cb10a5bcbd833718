"""Reading a stream in an order drawn from a seed, by one of several processes, from a position that can be saved.

The shards of an epoch are shuffled and dealt to the processes in turn; the next epoch's go on where the dealing
stopped, so that all processes get the same number of shards in the long run. Together they read every shard once an
epoch. Samples are mixed in a buffer that is emptied before the next epoch begins. A
position names the shards that were not yet delivered to their last sample; reading on from it begins with these.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import attrs

from fluid_core.configuration.structuring import structure
from fluid_core.data.captioned_images import CaptionedImage, CaptionedStream, StreamSample
from fluid_core.data.skipped_items import SkippedItem
from fluid_core.errors import CheckpointError, CheckpointMismatchError, ConfigurationError, DataError, SkippedItemError

_NUM_SHOWN = 5


@attrs.frozen(kw_only=True)
class StreamPosition:
    """Where one process stands in a stream."""

    num_shards: int
    """Shards of the whole stream: a position means nothing in another one."""

    epoch: int
    shards: tuple[int, ...]
    """Those of the process's shards in this epoch that are not yet delivered whole, in the order of reading."""


class StreamReader:
    """Items of a stream without end, epoch after epoch, for process `process` of `num_processes`.

    Raises `DataError` if there are fewer shards than processes.
    """

    def __init__(
        self,
        stream: CaptionedStream,
        *,
        seed: int,
        process: int = 0,
        num_processes: int = 1,
        position: StreamPosition | None = None,
    ) -> None:
        if stream.num_shards < num_processes:
            raise DataError(
                f"Expected at least one shard of the stream for each of the {num_processes} processes, found "
                f"{stream.num_shards} shard(s). Split the data into more files, best of equal size and several for "
                "each process, or start fewer processes."
            )
        self._stream = stream
        self._seed = seed
        self._process, self._num_processes = process, num_processes
        start = position or StreamPosition(num_shards=stream.num_shards, epoch=0, shards=self._shards_of(0))
        self._epoch, self._shards = start.epoch, start.shards
        self._num_started = 0
        self._open: int | None = None
        self._waiting: Counter[int] = Counter()

    @property
    def position(self) -> StreamPosition:
        """Where reading stands: from here on nothing is lost, and samples of unfinished shards come again."""
        started = self._shards[: self._num_started]
        unfinished = tuple(shard for shard in started if shard == self._open or self._waiting[shard])
        return StreamPosition(
            num_shards=self._stream.num_shards,
            epoch=self._epoch,
            shards=unfinished + self._shards[self._num_started :],
        )

    def __iter__(self) -> Iterator[CaptionedImage | SkippedItem]:
        """Items without end, and those that can not be used. Raises `DataError` after an epoch without any item."""
        while True:
            is_whole = len(self._shards) == len(self._shards_of(self._epoch))
            skipped: list[SkippedItem] = []
            num_items = 0
            for item in self.rest_of_epoch():
                if not isinstance(item, SkippedItem):
                    num_items += 1
                elif len(skipped) < _NUM_SHOWN:
                    skipped.append(item)
                yield item
            if is_whole and not num_items:
                shown = "".join(f"\n  {one.reason}" for one in skipped)
                raise DataError(
                    f"Expected items in {len(self._shards)} shards of the stream, found not one that can be used. "
                    f"Repair them, check the options that name their columns, or choose another data set.{shown}"
                )
            self._epoch += 1
            self._shards = self._shards_of(self._epoch)

    def rest_of_epoch(self) -> Iterator[CaptionedImage | SkippedItem]:
        """The items that are left of the epoch reached."""
        self._num_started, self._open, self._waiting = 0, None, Counter()
        chance = random.Random(f"{self._seed}/{self._epoch}/{self._shards}")
        buffer: list[tuple[int, StreamSample]] = []
        for shard in self._shards:
            self._num_started += 1
            self._open = shard
            for sample in self._samples_of(shard):
                if isinstance(sample, SkippedItem):
                    yield sample
                    continue
                buffer.append((shard, sample))
                self._waiting[shard] += 1
                if len(buffer) >= self._stream.shuffle_buffer:
                    yield self._delivered(buffer, chance)
            self._open = None
        while buffer:
            yield self._delivered(buffer, chance)

    def _samples_of(self, shard: int) -> Iterator[StreamSample | SkippedItem]:
        try:
            yield from self._stream.samples(shard)
        except SkippedItemError as error:
            yield SkippedItem.of(f"shard {shard}", error)

    def _delivered(self, buffer: list[tuple[int, StreamSample]], chance: random.Random) -> CaptionedImage | SkippedItem:
        place = chance.randrange(len(buffer))
        buffer[place], buffer[-1] = buffer[-1], buffer[place]
        shard, sample = buffer.pop()
        self._waiting[shard] -= 1
        try:
            return self._stream.item(sample, epoch=self._epoch)
        except SkippedItemError as error:
            return SkippedItem.of(sample.key, error)

    def _shards_of(self, epoch: int) -> tuple[int, ...]:
        """This process's shards of an epoch: the same order is drawn in all processes."""
        num_shards = self._stream.num_shards
        order = list(range(num_shards))
        random.Random(f"{self._seed}/{epoch}").shuffle(order)
        # Dealt from the first process on in every epoch, it would always be the first ones that get a shard more.
        num_dealt = epoch * num_shards
        return tuple(order[(self._process - num_dealt) % self._num_processes :: self._num_processes])


def first_items(stream: CaptionedStream, *, shuffle_seed: int | None = None) -> Iterator[CaptionedImage | SkippedItem]:
    """The items of one epoch, shard by shard as they lie there, or shuffled."""
    if shuffle_seed is not None:
        yield from StreamReader(stream, seed=shuffle_seed).rest_of_epoch()
        return
    for shard in range(stream.num_shards):
        try:
            for sample in stream.samples(shard):
                try:
                    yield stream.item(sample, epoch=0)
                except SkippedItemError as error:
                    yield SkippedItem.of(sample.key, error)
        except SkippedItemError as error:
            yield SkippedItem.of(f"shard {shard}", error)


def restored_position(
    states: Sequence[Any], *, num_shards: int, process: int, num_processes: int
) -> StreamPosition | None:
    """Where process `process` of `num_processes` reads on, from the saved positions of all processes of a run.

    With another number of processes, the unfinished shards of the earliest epoch are dealt out anew; what some
    process had read of the epoch after it is then read again. None if nothing was saved. Raises `CheckpointError` for
    states that are none, and `CheckpointMismatchError` if the stream has another number of shards.
    """
    if not states:
        return None
    try:
        positions = [structure(state, StreamPosition, subject="position in a stream") for state in states]
    except ConfigurationError as error:
        raise CheckpointError(f"The position in the data that the checkpoint holds is damaged: {error}") from error
    found = {position.num_shards for position in positions}
    if found != {num_shards} or any(shard >= num_shards for position in positions for shard in position.shards):
        raise CheckpointMismatchError(
            f"Expected the stream that the run was started with, of {max(found)} shards, found one of {num_shards}. "
            "Resume with the same shards, or start a new run."
        )
    if len(positions) == num_processes:
        return positions[process]
    epoch = min(position.epoch for position in positions)
    left = [shard for position in positions if position.epoch == epoch for shard in position.shards]
    return StreamPosition(num_shards=num_shards, epoch=epoch, shards=tuple(left[process::num_processes]))
