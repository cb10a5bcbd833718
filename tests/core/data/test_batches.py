"""Batches by step: every item once an epoch, the same for the same step, and pictures that can not be read."""

import threading
from collections import Counter

import pytest
import torch

from fluid_core.data.batches import BatchLoader, readable_items, stack
from fluid_core.data.captioned_images import CaptionedImage
from fluid_core.errors import DataError, InvalidRequestError, UnreadableImageError


class Numbers:
    """Item i is a picture filled with i / 100, captioned with its number; some can not be read."""

    image_size = (2, 2)

    def __init__(self, length, broken=()):
        self.length, self.broken, self.threads = length, set(broken), set()

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        self.threads.add(threading.current_thread().name)
        if index in self.broken:
            raise UnreadableImageError(f"picture {index} is damaged")
        return CaptionedImage(image=torch.full((3, 2, 2), index / 100), caption=str(index))


def captions(dataset, steps, *, batch_size=4, seed=0):
    """Numbers in the batches of some steps, and what could not be read."""
    loader = BatchLoader(dataset, batch_size=batch_size, seed=seed)
    try:
        return [[int(caption) for caption in loader.batch(step).captions] for step in steps], {
            int(item.item): item.reason for item in loader.skipped.listed.values()
        }
    finally:
        loader.close()


def test_every_epoch_covers_all_items_exactly_once():
    """Also where batches cross from one epoch into the next; each epoch has an order of its own."""
    batches, _ = captions(Numbers(10), range(10))
    stream = [number for batch in batches for number in batch]
    epochs = [stream[first : first + 10] for first in range(0, 40, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_a_batch_follows_from_its_step():
    """Asked for in any order, twice, or by another loader, a step's batch is the same; another seed gives others."""
    forward, _ = captions(Numbers(10), range(6))
    jumbled, _ = captions(Numbers(10), [5, 0, 3, 3, 1, 2, 4])
    assert [jumbled[i] for i in (1, 4, 5, 2, 6, 0)] == forward
    assert jumbled[2] == jumbled[3]
    assert captions(Numbers(10), range(6), seed=1)[0] != forward
    assert len(captions(Numbers(10), range(2), seed=2**62)[0]) == 2


def test_images_and_captions_belong_together():
    """Row i of the images is the picture of caption i, also in batches larger than the data set."""
    loader = BatchLoader(Numbers(5), batch_size=12, seed=0)
    batch = loader.batch(0)
    loader.close()
    assert batch.images.shape == (12, 3, 2, 2)
    assert torch.equal(batch.images[:, 0, 0, 0], torch.tensor([int(c) / 100 for c in batch.captions]))


def test_unreadable_pictures_are_counted_and_replaced():
    """Each is reported once with its reason, never delivered, and replaced by a picture of the same epoch."""
    batches, unreadable = captions(Numbers(10, broken=[2, 3, 7]), range(5))
    delivered = Counter(number for batch in batches for number in batch)
    assert sum(delivered.values()) == 20
    assert set(delivered) == {0, 1, 4, 5, 6, 8, 9}
    assert unreadable == {index: f"picture {index} is damaged" for index in (2, 3, 7)}


def test_only_batches_handed_out_are_counted():
    """What reading ahead finds is reported with its batch, so that the count follows from the step."""
    counts = []
    loader = BatchLoader(Numbers(12, broken=range(6)), batch_size=3, seed=0)
    for step in range(4):
        loader.batch(step)
        counts.append(len(loader.skipped))
    loader.close()
    again = [len(captions(Numbers(12, broken=range(6)), range(last), batch_size=3)[1]) for last in range(1, 5)]
    assert counts == again
    assert counts[-1] == 6


def test_a_long_run_of_damaged_neighbours_is_no_obstacle():
    """Three hundred damaged files side by side, as an interrupted download leaves them, are skipped."""
    batches, unreadable = captions(Numbers(600, broken=range(100, 400)), range(150))
    assert len(unreadable) == 300
    assert not {number for batch in batches for number in batch} & set(range(100, 400))


def test_nothing_readable_is_an_error():
    """When no picture can be read the error shows how many and why."""
    with pytest.raises(DataError, match=r"found 6 in a row that can not.*\n  picture \d is damaged"):
        captions(Numbers(6, broken=range(6)), [0])
    with pytest.raises(DataError, match="empty"):
        BatchLoader(Numbers(0), batch_size=2, seed=0)


def test_the_next_batch_is_read_in_the_background():
    """Reading happens off the training thread, and closing the loader ends it."""
    dataset = Numbers(10)
    captions(dataset, range(3))
    assert threading.current_thread().name not in dataset.threads
    assert not any(thread.name.startswith("batches") for thread in threading.enumerate())


def test_readable_items_are_the_first_that_can_be_read():
    """Damaged ones are passed over and told; fewer come back where there are fewer; none is an error with reasons."""
    data = Numbers(10, broken=[0, 2, 7])
    read = readable_items(data, 3)
    assert [item.caption for item in read.items] == ["1", "3", "4"]
    assert [(one.item, one.reason) for one in read.skipped] == [
        ("0", "picture 0 is damaged"),
        ("2", "picture 2 is damaged"),
    ]
    assert torch.equal(stack(readable_items(data, 3).items).images[:, 0, 0, 0], torch.tensor([0.01, 0.03, 0.04]))
    assert len(readable_items(Numbers(4), 100).items) == 4
    with pytest.raises(DataError, match=r"Not one picture .* found 3 that can not.*\n  picture 0 is damaged"):
        readable_items(Numbers(3, broken=range(3)), 2)
    with pytest.raises(InvalidRequestError, match="found 0"):
        readable_items(Numbers(3), 0)


def test_shuffled_items_come_from_everywhere():
    """A seed picks the same items every time, another seed others, and not only the head of a sorted data set."""

    def picked(seed):
        return [int(item.caption) for item in readable_items(Numbers(400), 40, shuffle_seed=seed).items]

    first = picked(0)
    assert first == picked(0)
    assert first != picked(1)
    assert len(set(first)) == 40
    assert max(first) > 300
    assert min(first) < 100


def test_stacking_keeps_items():
    """Images in a row, captions beside them."""
    batch = stack([Numbers(3)[i] for i in (2, 0)])
    assert batch.captions == ("2", "0")
    assert torch.equal(batch.images[0], torch.full((3, 2, 2), 0.02))
