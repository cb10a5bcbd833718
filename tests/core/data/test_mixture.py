"""Several data sets as one."""

import pytest
import torch
from PIL import Image

from fluid_core.catalog import installed_components
from fluid_core.data.captioned_images import CaptionedImage, CaptionedImages, EpochVariants
from fluid_core.data.mixture import MixtureDataset
from fluid_core.data.open_batches import open_batches
from fluid_core.data.options import MixtureOptions, MixturePart
from fluid_core.errors import ConfigurationError, DataError
from fluid_core.exchange import DatasetContext


class Named:
    """`count` black pictures whose captions tell the set and the index."""

    image_size = (4, 4)

    def __init__(self, name: str, count: int) -> None:
        self.name, self.count = name, count

    def __len__(self) -> int:
        """Number of items."""
        return self.count

    def __getitem__(self, index: int) -> CaptionedImage:
        """Item `index`."""
        if not 0 <= index < self.count:
            raise IndexError(index)
        return CaptionedImage(image=torch.zeros(3, 4, 4), caption=f"{self.name} {index}")


class Drawn(Named):
    """Items that tell their epoch as well."""

    varies = True

    def __getitem__(self, index: int) -> CaptionedImage:
        """Item `index` of the first epoch."""
        return self.variant(index, epoch=0)

    def variant(self, index: int, *, epoch: int) -> CaptionedImage:
        """Item `index` of `epoch`."""
        return CaptionedImage(image=torch.zeros(3, 4, 4), caption=f"{self.name} {index} {epoch}")


def epochs_of(mixture, num_epochs):
    """The captions of every epoch of training, through the loader that training uses."""
    batches = open_batches(mixture, batch_size=len(mixture), seed=0)
    captions = [sorted(batches.batch(step).captions) for step in range(num_epochs)]
    batches.close()
    return captions


def test_parts_draw_anew_in_every_epoch():
    """What a part draws for an item is never the same twice, over its own rounds and the epochs of the mixture."""
    mixture = MixtureDataset((Drawn("a", 30), Drawn("b", 70), Named("c", 100)), (1.0, 1.0, 2.0))
    assert isinstance(mixture, EpochVariants)
    assert mixture.varies
    captions = epochs_of(mixture, 3)
    assert captions[0] == sorted(mixture[index].caption for index in range(len(mixture)))
    drawn = [caption for epoch in captions for caption in epoch if not caption.startswith("c")]
    assert len(drawn) == len(set(drawn)) == 3 * len(mixture) // 2
    assert {tuple(caption.split()[:2]) for caption in drawn} == {("a", str(i)) for i in range(30)} | {
        ("b", str(i)) for i in range(70)
    }
    steady = MixtureDataset((Named("a", 30), Named("b", 70)), (1.0, 1.0))
    assert not steady.varies
    first, second = epochs_of(steady, 2)
    assert first == second


def test_random_crops_in_a_mixture_move_from_epoch_to_epoch(tmp_path):
    """A picture of a folder that is part of a mixture is cut elsewhere in the next epoch, and there again in another
    run; where nothing is drawn, every epoch shows the middle.
    """
    picture = Image.new("RGB", (160, 16))
    picture.putdata([(x, x, x) for _ in range(16) for x in range(160)])
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a ramp"}\n')
    picture.save(tmp_path / "a.png")

    def brightness(crop):
        options = {"path": str(tmp_path), "crop": crop, "validation_fraction": 0.0}
        parts = MixtureOptions(parts=(MixturePart(name="image-folder", options=options),))
        mixture = installed_components().build("dataset", "mixture", parts, DatasetContext(image_size=(16, 16)))
        batches = open_batches(mixture, batch_size=1, seed=0)
        found = [round(float(batches.batch(epoch).images.mean()), 4) for epoch in range(40)]
        batches.close()
        return found

    moving = brightness("random")
    assert moving == brightness("random")
    assert len(set(moving)) > 20
    assert len(set(brightness("center"))) == 1


def test_shares_hold_in_every_stretch_and_nothing_is_left_out():
    """A quarter and three quarters, in any hundred items; each part is seen whole before the mixture ends."""
    mixture = MixtureDataset((Named("a", 700), Named("b", 300)), (1.0, 3.0))
    assert isinstance(mixture, CaptionedImages)
    captions = [mixture[index].caption for index in range(len(mixture))]
    for first in range(0, len(captions) - 100, 37):
        share = sum(caption.startswith("a") for caption in captions[first : first + 100])
        assert 24 <= share <= 26
    assert set(captions) == {f"a {i}" for i in range(700)} | {f"b {i}" for i in range(300)}
    assert len(mixture) == 2800
    with pytest.raises(IndexError, match="items 0 to 2799, asked for 2800"):
        mixture[2800]


def test_shares_that_do_not_divide_add_up():
    """Thirds are 333 or 334 thousandths."""
    mixture = MixtureDataset(tuple(Named(name, 1000) for name in "abc"), (1.0, 1.0, 1.0))
    firsts = [mixture[index].caption[0] for index in range(1000)]
    assert sorted(firsts.count(name) for name in "abc") == [333, 333, 334]


def test_parts_are_built_by_name():
    """Every part gets the same split, seed and size; unknown names are refused as anywhere."""
    catalog, context = installed_components(), DatasetContext(image_size=(32, 32), split="validation", seed=3)
    shapes = MixturePart(name="shapes", options={"num_validation_examples": 6})
    alone = catalog.build("dataset", "shapes", shapes.options, context)
    mixture = catalog.build("dataset", "mixture", MixtureOptions(parts=(shapes, shapes)), context)
    assert torch.equal(mixture[0].image, alone[0].image)
    assert mixture[0].caption == mixture[1].caption == alone[0].caption
    written = {"parts": [{"name": "shapes", "weight": 2.0}, {"name": "shapes"}]}
    assert len(catalog.build("dataset", "mixture", written, context).parts) == 2


def test_what_can_not_be_mixed_is_refused():
    """No parts, an empty part, a share too small to hold."""
    with pytest.raises(ValueError, match="parts must name at least one data set"):
        MixtureOptions(parts=())
    with pytest.raises(ValueError, match=r"weight must be a number above 0, found 0\.0"):
        MixturePart(name="shapes", weight=0.0)
    with pytest.raises(DataError, match="Part 2 of the mixture is empty"):
        MixtureDataset((Named("a", 1), Named("b", 0)), (1.0, 1.0))
    with pytest.raises(ConfigurationError, match="Part 1 of the mixture has a share below a thousandth"):
        MixtureDataset((Named("a", 1), Named("b", 1)), (1.0, 1e5))
