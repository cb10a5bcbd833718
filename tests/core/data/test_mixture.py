"""Several data sets as one."""

import pytest
import torch

from fluid_core.catalog import installed_components
from fluid_core.data.captioned_images import CaptionedImage, CaptionedImages
from fluid_core.data.mixture import MixtureDataset
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
