"""Items by number: the same ones for every reader, with numbers left empty where nothing can be read."""

import pytest
import torch

from fluid_core.data.batches import readable_items
from fluid_core.data.captioned_images import CaptionedImage, StreamSample
from fluid_core.data.numbered_items import NumberedItems
from fluid_core.errors import InvalidRequestError, UnreadableImageError


class TenPictures:
    """Pictures of one grey each; the fourth is damaged."""

    image_size = (2, 2)

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if index == 3:
            raise UnreadableImageError("damaged")
        return CaptionedImage(image=torch.full((3, 2, 2), index / 10), caption=f"number {index}")


class Stream:
    """The same ten in two shards."""

    image_size = (2, 2)
    num_shards = 2
    shuffle_buffer = 1
    varies = False

    def samples(self, shard):
        """Five of each shard."""
        return iter([StreamSample(key=str(index), content=index) for index in range(shard * 5, shard * 5 + 5)])

    def item(self, sample, *, epoch):
        """The picture of a sample."""
        return TenPictures()[sample.content]


@pytest.mark.parametrize("dataset", [TenPictures(), Stream()], ids=["by index", "stream"])
@pytest.mark.parametrize("seed", [None, 4])
def test_parts_are_those_of_the_whole(dataset, seed):
    """Whoever reads parts, in whatever order, gets what reading through gives; the damaged one is left out."""
    whole = [item.caption for item in readable_items(dataset, 10, shuffle_seed=seed).items]
    items = NumberedItems(dataset, 10, shuffle_seed=seed)
    parts = [items.read(range(first, min(first + 4, 10))) for first in (8, 0, 4)]
    by_number = {one.number: one.item.caption for part in parts for one in part}
    assert [by_number[number] for number in sorted(by_number)] == whole
    assert len(by_number) == 9


def test_a_number_beyond_the_end_has_nothing():
    """A data set tells how many it has; of a stream nobody knows until it ends."""
    assert NumberedItems(TenPictures(), 99).count == 10
    assert NumberedItems(TenPictures(), 7).count == 7
    stream = NumberedItems(Stream(), 12)
    assert stream.count == 12
    assert [one.number for one in stream.read(range(8, 12))] == [8, 9]
    with pytest.raises(InvalidRequestError, match="found 0"):
        NumberedItems(TenPictures(), 0)
