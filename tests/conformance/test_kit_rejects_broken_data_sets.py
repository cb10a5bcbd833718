"""Data sets with one mistake each, and the test of the suite that finds it."""

import attrs
import pytest
import torch

from fluid_core.data.captioned_images import JudgedPrompt, StreamSample, Verdict
from fluid_core.exchange import DatasetContext
from fluid_core.testing import DatasetSuite
from fluid_core.testing.tiny import TinyFlags, TinyFlagStream


class FixedSize(TinyFlags):
    """Has one size, whatever the tokenizer takes."""

    caught_by = "test_is_a_data_set"

    def __init__(self, context):
        super().__init__(DatasetContext(image_size=(32, 32), split=context.split))


class NoCaption(TinyFlags):
    """Says nothing about one of its pictures."""

    caught_by = "test_items_are_captioned_images"

    def __getitem__(self, index):
        """An item, at times without words."""
        item = super().__getitem__(index)
        return attrs.evolve(item, caption=" ") if index == 3 else item


class Bytes(TinyFlags):
    """Pictures from 0 to 255."""

    caught_by = "test_items_are_captioned_images"

    def __getitem__(self, index):
        """An item that was not scaled."""
        item = super().__getitem__(index)
        return attrs.evolve(item, image=(item.image + 1) * 127.5)


class HalfTheRange(TinyFlags):
    """Pictures from 0 to 1."""

    caught_by = "test_pictures_use_the_range"

    def __getitem__(self, index):
        """An item that is scaled for somebody else."""
        item = super().__getitem__(index)
        return attrs.evolve(item, image=(item.image + 1) / 2)


class DriftsWithEveryVisit(TinyFlags):
    """Draws its noise from a generator that all items share."""

    caught_by = "test_items_are_the_same_every_time"

    def __init__(self, context):
        super().__init__(context)
        self._generator = torch.Generator().manual_seed(context.seed)

    def __getitem__(self, index):
        """An item that depends on the visits before."""
        item = super().__getitem__(index)
        noise = 0.1 * torch.rand(item.image.shape, generator=self._generator)
        return attrs.evolve(item, image=(item.image + noise).clamp(-1, 1))


class FlipsByChance(TinyFlags):
    """Augments with the global generator."""

    caught_by = "test_items_do_not_depend_on_global_random_numbers"

    def __getitem__(self, index):
        """An item, upside down at times."""
        item = super().__getitem__(index)
        return attrs.evolve(item, image=item.image.flip(1) if torch.rand(()) < 0.5 else item.image)


class SharesItsCache(TinyFlags):
    """Hands out the picture that it keeps."""

    caught_by = "test_items_may_be_changed_by_whoever_gets_them"

    def __init__(self, context):
        super().__init__(context)
        self._kept = [TinyFlags.__getitem__(self, index) for index in range(len(self))]

    def __getitem__(self, index):
        """The same object every time."""
        return self._kept[index]


class OnlyOnePicture(TinyFlags):
    """Ignores the index."""

    caught_by = "test_items_differ"

    def __getitem__(self, index):
        """The first item."""
        return super().__getitem__(0)


class CountsFromTheEnd(TinyFlags):
    """Takes negative indices as lists do."""

    caught_by = "test_indices_outside_raise"

    def __getitem__(self, index):
        """An item from either end."""
        return super().__getitem__(index % len(self) if index < 0 else index)


class OneSplit(TinyFlags):
    """Validates on what it trains on."""

    caught_by = "test_validation_items_are_not_trained_on"

    def __init__(self, context):
        super().__init__(DatasetContext(image_size=context.image_size))


class AcceptsEverything(TinyFlags):
    """A judge that is easily pleased."""

    caught_by = "test_judged_prompts"
    tasks = ("flags",)

    def evaluation_prompts(self, *, num_per_task, seed):
        """The first flags."""
        return tuple(JudgedPrompt(task="flags", text=self[index].caption, facts=None) for index in range(num_per_task))

    def judge(self, image, prompt):
        """Yes."""
        return Verdict(correct=True, reason="looks fine")


class AnotherFirstEpoch(TinyFlags):
    """Shows something else by index than in its first epoch."""

    caught_by = "test_epochs_follow_from_their_number"
    varies = True

    def variant(self, index, *, epoch):
        """The flag after `epoch + 1` turns."""
        item = self[index]
        return attrs.evolve(item, image=item.image.flip(1) if epoch % 2 == 0 else item.image)


class VariesInSecret(TinyFlagStream):
    """Turns its flags upside down in every other epoch and says nothing."""

    caught_by = "test_epochs_follow_from_their_number"

    def item(self, sample, *, epoch):
        """A flag."""
        item = super().item(sample, epoch=epoch)
        return attrs.evolve(item, image=item.image.flip(1) if epoch % 2 else item.image)


class HasNoShards(TinyFlagStream):
    """Counts none."""

    caught_by = "test_is_a_data_set"
    num_shards = 0


class StreamOfBytes(TinyFlagStream):
    """A stream of pictures from 0 to 255."""

    caught_by = "test_items_are_captioned_images"

    def item(self, sample, *, epoch):
        """An item that was not scaled."""
        item = super().item(sample, epoch=epoch)
        return attrs.evolve(item, image=(item.image + 1) * 127.5)


class ShufflesItsShards(TinyFlagStream):
    """Mixes samples itself, differently every time."""

    caught_by = "test_items_are_the_same_every_time"
    visits = 0

    def samples(self, shard):
        """The samples, from another one on at every visit."""
        found = list(super().samples(shard))
        self.visits += 1
        start = self.visits % len(found)
        yield from found[start:] + found[:start]


class WrapsAround(TinyFlagStream):
    """Starts over after the last shard."""

    caught_by = "test_indices_outside_raise"

    def samples(self, shard):
        """The samples of a shard, whatever its number."""
        return super().samples(shard % self.num_shards)


class OneReader(TinyFlagStream):
    """Keeps its place in itself."""

    caught_by = "test_shards_can_be_read_side_by_side"

    def samples(self, shard):
        """Samples counted from a place that all readers share."""
        found = list(super().samples(shard))
        self.place = 0
        while self.place < len(found):
            self.place += 1
            yield found[self.place - 1]


class CountsInEachShard(TinyFlagStream):
    """Gives keys that begin anew in every shard."""

    caught_by = "test_keys_are_unique"

    def samples(self, shard):
        """Samples with their number as key."""
        for number, sample in enumerate(super().samples(shard)):
            yield StreamSample(key=str(number), content=sample.content)


class StreamOfOneSplit(TinyFlagStream):
    """A stream that validates on what it trains on."""

    caught_by = "test_validation_items_are_not_trained_on"

    def __init__(self, context):
        super().__init__(DatasetContext(image_size=context.image_size))


BROKEN = [
    dataset
    for dataset in list(globals().values())
    if isinstance(dataset, type) and hasattr(dataset, "caught_by") and dataset.__module__ == __name__
]


def suite_for(broken):
    """A suite that tests `broken`, a function from `DatasetContext` to a data set."""

    class Suite(DatasetSuite):
        def dataset(self, context):
            return broken(context)

    return Suite


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_data_sets_are_rejected(broken, assert_rejected):
    """The test named by `caught_by` fails."""
    assert_rejected(suite_for(broken), broken.caught_by)


def test_every_test_of_the_suite_catches_something():
    """No test of the suite is there for show: each has a broken data set that fails it."""
    tests = {name for name in dir(DatasetSuite) if name.startswith("test_")}
    assert tests == {broken.caught_by for broken in BROKEN}
