"""Streams: every sample once an epoch, over processes and interruptions; what can not be used is told."""

import json
from collections import Counter
from itertools import pairwise

import pytest
import torch

from fluid_core.data.batches import BatchLoader, readable_items
from fluid_core.data.captioned_images import CaptionedImage, CaptionedStream, StreamSample
from fluid_core.data.open_batches import open_batches
from fluid_core.data.stream_batches import StreamLoader
from fluid_core.data.stream_reading import restored_position
from fluid_core.errors import (
    CheckpointError,
    CheckpointMismatchError,
    DamagedShardError,
    DataError,
    InvalidRequestError,
    TooManySkippedError,
    UnreadableImageError,
)
from fluid_core.training.processes import Processes


class Numbers:
    """Shard s has `sizes[s]` samples, captioned `s.i`; some are broken, and some shards break off at a sample."""

    image_size = (2, 2)
    varies = True

    def __init__(self, sizes, *, broken=(), breaks_at=None, shuffle_buffer=4):
        self.sizes, self.broken, self.breaks_at = sizes, set(broken), breaks_at or {}
        self.shuffle_buffer = shuffle_buffer
        self.opened = []

    @property
    def num_shards(self):
        """One for each size."""
        return len(self.sizes)

    def samples(self, shard):
        """The samples of a shard, until it breaks off."""
        self.opened.append(shard)
        for index in range(self.sizes[shard]):
            if index == self.breaks_at.get(shard):
                raise DamagedShardError(f"shard {shard} breaks off")
            yield StreamSample(key=f"{shard}.{index}", content=epoch_free(shard, index))

    def item(self, sample, *, epoch):
        """A picture that tells sample and epoch."""
        if sample.key in self.broken:
            raise UnreadableImageError(f"picture {sample.key} is damaged")
        return CaptionedImage(image=torch.full((3, 2, 2), sample.content + epoch), caption=sample.key)


def epoch_free(shard, index):
    """A value that tells the sample."""
    return (100 * shard + index) / 10_000


def keys_of(sizes):
    """Every key of such a stream."""
    return {f"{shard}.{index}" for shard, size in enumerate(sizes) for index in range(size)}


def read(loader, num_batches, first=0):
    """The captions of some batches, in a row."""
    return [caption for step in range(first, first + num_batches) for caption in loader.batch(step).captions]


def opened(stream, **options):
    """A loader of batches of two."""
    return open_batches(stream, **{"batch_size": 2, "seed": 0, **options})


def closing(loader, num_batches, first=0):
    """The captions of some batches and the state after them; the loader is closed."""
    captions, state = read(loader, num_batches, first), loader.state()
    loader.close()
    return captions, state


def test_the_loader_follows_from_the_data_set():
    """A stream is read in sequence, a data set with an index by step."""
    stream = Numbers([3, 3])
    assert isinstance(stream, CaptionedStream)
    loader = opened(stream)
    assert isinstance(loader, StreamLoader)
    loader.close()


@pytest.mark.parametrize("shuffle_buffer", [1, 4, 1000])
def test_every_epoch_covers_all_samples_exactly_once(shuffle_buffer):
    """In an order of its own, whatever is mixed; pictures belong to their captions, and know their epoch."""
    sizes = [5, 1, 7, 3]
    loader = opened(Numbers(sizes, shuffle_buffer=shuffle_buffer))
    batches = [loader.batch(step) for step in range(24)]
    loader.close()
    captions = [caption for batch in batches for caption in batch.captions]
    epochs = [captions[first : first + 16] for first in (0, 16, 32)]
    assert all(len(epoch) == 16 and set(epoch) == keys_of(sizes) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    values = torch.cat([batch.images for batch in batches])[:, 0, 0, 0]
    expected = [epoch_free(*map(int, key.split("."))) + place // 16 for place, key in enumerate(captions)]
    torch.testing.assert_close(values, torch.tensor(expected))


def test_samples_of_shards_are_mixed_in_the_buffer():
    """With a buffer, neighbours in a shard are apart; without one they are not."""
    stream = Numbers([50, 50], shuffle_buffer=30)
    mixed, _ = closing(opened(stream), 40)
    stream.shuffle_buffer = 1
    straight, _ = closing(opened(stream), 40)
    assert straight[:50] == [f"{straight[0][0]}.{index}" for index in range(50)]
    neighbours = sum(int(b.split(".")[1]) - int(a.split(".")[1]) == 1 for a, b in pairwise(mixed))
    assert neighbours < 15


def test_the_seed_decides_the_order():
    """The same seed gives the same batches, another one others."""
    sizes = [9] * 5
    first, _ = closing(opened(Numbers(sizes)), 30)
    assert closing(opened(Numbers(sizes)), 30)[0] == first
    assert closing(opened(Numbers(sizes), seed=1), 30)[0] != first


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_processes_divide_the_shards(num_processes):
    """In every epoch each shard is opened by one process, and together they deliver every sample once."""
    sizes = [4] * 6
    delivered, opened_shards = Counter(), Counter()
    for rank in range(num_processes):
        stream = Numbers(sizes)
        share = Processes(rank=rank, count=num_processes).share(2 * num_processes)
        # Two epochs of this process's part, no more: 24 / n samples each, two in every batch.
        captions, _ = closing(opened(stream, batch_size=2 * num_processes, share=share), 24 // num_processes)
        assert len(captions) == 48 // num_processes
        delivered.update(captions)
        opened_shards.update(stream.opened[: 12 // num_processes])
    assert set(delivered) == keys_of(sizes)
    assert set(delivered.values()) == {2}
    assert set(opened_shards.values()) == {2}


def test_processes_stay_together_where_shards_do_not_divide_evenly():
    """Three shards among two processes: a shard more for one epoch is one less in the next, so that nobody runs ahead.

    Every epoch still has every sample once.
    """
    sizes, num_epochs = [4] * 3, 6
    delivered, positions = Counter(), []
    for rank in range(2):
        share = Processes(rank=rank, count=2).share(4)
        loader = opened(Numbers(sizes, shuffle_buffer=1), batch_size=4, share=share)
        values = []
        for step in range(3 * num_epochs):
            batch = loader.batch(step)
            whole = batch.images[:, 0, 0, 0]
            values += zip(batch.captions, whole.tolist(), strict=True)
            positions.append((step, loader.state()["epoch"]))
        loader.close()
        delivered.update((key, round(value - epoch_free(*map(int, key.split("."))))) for key, value in values)
    assert delivered == Counter({(key, epoch): 1 for key in keys_of(sizes) for epoch in range(num_epochs)})
    reached = [{epoch for at, epoch in positions if at == step} for step in range(3 * num_epochs)]
    assert all(max(epochs) - min(epochs) <= 1 for epochs in reached)


def test_too_few_shards_are_refused():
    """Each process needs one; the message says what to do."""
    share = Processes(rank=0, count=3).share(3)
    with pytest.raises(DataError, match=r"each of the 3 processes, found 2 shard\(s\)\. Split the data"):
        opened(Numbers([5, 5]), batch_size=3, share=share)


@pytest.mark.parametrize("stop_after", [0, 1, 3, 7, 9, 10, 13, 20, 29])
@pytest.mark.parametrize("shuffle_buffer", [1, 5, 100])
def test_a_resumed_stream_loses_nothing(stop_after, shuffle_buffer):
    """What was delivered before and after an interruption covers the epoch; only unfinished shards are read again."""
    sizes = [6, 2, 5, 4, 3]
    stream = Numbers(sizes, shuffle_buffer=shuffle_buffer)
    loader = opened(stream)
    before, state = closing(loader, stop_after)
    state = json.loads(json.dumps(state))
    again = Numbers(sizes, shuffle_buffer=shuffle_buffer)
    resumed = opened(again, state=[state])
    repeated = Counter(state["shards"])
    num_left = sum(sizes[shard] for shard in repeated)
    after = read(resumed, (num_left + sum(sizes)) // 2, first=stop_after)
    resumed.close()
    of_epoch = before[sum(sizes) * state["epoch"] :]
    assert set(of_epoch) | set(after[:num_left]) == keys_of(sizes)
    finished = {shard for shard in range(len(sizes)) if shard not in repeated}
    assert all(int(key.split(".")[0]) in repeated for key in after[:num_left])
    assert {int(key.split(".")[0]) for key in of_epoch} >= finished
    assert set(after[num_left : num_left + sum(sizes)]) <= keys_of(sizes)


def test_reading_ahead_is_not_part_of_the_state():
    """The state is that after the last batch handed out, though the next one is read already."""
    stream = Numbers([2, 2, 2, 2], shuffle_buffer=1)
    loader = opened(stream)
    first = loader.state()
    loader.batch(0)
    loader.batch(1)
    state = loader.state()
    loader.close()
    assert first["shards"] == stream.opened[: len(first["shards"])] + first["shards"][len(stream.opened) :]
    assert len(first["shards"]) == 4
    assert state["shards"] == first["shards"][1:] or state["shards"] == first["shards"][2:]


def test_another_number_of_processes_deals_out_what_is_left():
    """Three processes go on where two stood: the unfinished shards of the earlier epoch, each to one of them."""
    sizes = [4] * 8
    states, before = [], []
    for rank in range(2):
        share = Processes(rank=rank, count=2).share(4)
        captions, state = closing(opened(Numbers(sizes), batch_size=4, share=share), 3)
        before += captions
        states.append(state)
    left = Counter()
    for rank in range(3):
        position = restored_position(states, num_shards=8, process=rank, num_processes=3)
        left.update(position.shards)
    assert set(left.values()) == {1}
    done = set(range(8)) - set(left)
    assert done
    assert all(sum(key.startswith(f"{shard}.") for key in before) == 4 for shard in done)


def test_states_of_other_streams_are_refused():
    """Another number of shards, or something that is no position."""
    state = {"num_shards": 3, "epoch": 0, "shards": [0, 2]}
    assert restored_position([], num_shards=2, process=0, num_processes=1) is None
    with pytest.raises(CheckpointMismatchError, match="of 3 shards, found one of 2"):
        opened(Numbers([2, 2]), state=[state])
    for damaged in ({"epoch": 0}, {**state, "shards": ["a"]}, 7):
        with pytest.raises(CheckpointError, match="position in the data that the checkpoint holds is damaged"):
            opened(Numbers([2, 2, 2]), state=[damaged])


def test_steps_come_one_after_the_other():
    """A stream can not be asked for any step."""
    loader = opened(Numbers([9]))
    loader.batch(5)
    with pytest.raises(InvalidRequestError, match="expected to be asked for step 6, found 5"):
        loader.batch(5)
    loader.close()


def test_broken_samples_and_shards_are_counted_and_passed_over():
    """Damaged pictures and a shard that breaks off cost themselves alone, and are listed with their reason."""
    sizes = [5, 5, 5]
    loader = opened(Numbers(sizes, broken=["0.1", "2.4"], breaks_at={1: 3}))
    captions = read(loader, 15)
    loader.close()
    assert set(captions) == keys_of(sizes) - {"0.1", "2.4", "1.3", "1.4"}
    kinds = {one.item: one.kind for one in loader.skipped.listed.values()}
    assert kinds == {"0.1": "unreadable", "2.4": "unreadable", "shard 1": "damaged-shard"}
    assert len(loader.skipped) == 3


def test_nothing_usable_is_an_error():
    """An epoch without one item ends the run with reasons, and so does a very long stretch."""
    empty = opened(Numbers([4, 4], breaks_at={0: 0, 1: 0}))
    with pytest.raises(DataError, match=r"items in 2 shards .*found not one.*\n  shard \d breaks off"):
        empty.batch(0)
    assert len(empty.skipped) == 2
    empty.close()
    broken = opened(Numbers([3000], broken=keys_of([2500])))
    with pytest.raises(DataError, match=r"found 1000 in a row.*\n  picture 0\.\d+ is damaged"):
        broken.batch(0)
    broken.close()
    with pytest.raises(DataError, match="Not one picture"):
        readable_items(Numbers([3], broken=keys_of([3])), 2)


class ByIndex:
    """Every tenth of a thousand pictures is damaged."""

    image_size = (2, 2)

    def __len__(self):
        return 1000

    def __getitem__(self, index):
        if index % 10 == 0:
            raise UnreadableImageError(f"picture {index} is damaged")
        return CaptionedImage(image=torch.zeros(3, 2, 2), caption=str(index))


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_run_in_which_too_many_fail_stops(is_stream):
    """Not before 200 items were seen; the message tells share, kinds and reasons. A larger share is let pass."""
    stream = Numbers([1000], broken=[f"0.{index}" for index in range(0, 1000, 10)])
    dataset = stream if is_stream else ByIndex()
    strict = open_batches(dataset, batch_size=10, seed=0, max_skipped_share=0.05)
    assert isinstance(strict, StreamLoader if is_stream else BatchLoader)
    captions: list[str] = []

    def train():
        for step in range(100):
            captions.extend(strict.batch(step).captions)

    problem = (
        r"could not be used \(\d+\.\d%\), more than .*max_skipped_share allows \(5\.0%\): \d+ unreadable.*\n  picture"
    )
    with pytest.raises(TooManySkippedError, match=problem):
        train()
    strict.close()
    assert 150 < len(captions) < 400
    assert strict.skipped.num_seen >= 200
    lenient = open_batches(dataset, batch_size=10, seed=0, max_skipped_share=0.2)
    assert len(read(lenient, 60)) == 600
    lenient.close()


def test_the_first_items_of_a_stream():
    """In their order, or shuffled by a seed; no more shards are opened than it takes."""
    stream = Numbers([4, 4, 4], broken=["0.1"], shuffle_buffer=3)
    found = readable_items(stream, 5)
    assert [item.caption for item in found.items] == ["0.0", "0.2", "0.3", "1.0", "1.1"]
    assert [(one.item, one.kind) for one in found.skipped] == [("0.1", "unreadable")]
    assert stream.opened == [0, 1]
    shuffled = [[item.caption for item in readable_items(stream, 11, shuffle_seed=seed).items] for seed in (0, 0, 1)]
    assert shuffled[0] == shuffled[1] != shuffled[2]
    assert set(shuffled[0]) == keys_of([4, 4, 4]) - {"0.1"}
    assert len(readable_items(stream, 100).items) == 11
