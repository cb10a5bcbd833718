"""Data sets of encoded images that are each wrong in one way, and the test of the kit that catches each of them."""

import pytest
import torch

from fluid_core.data.encoded_images import EncodedImage
from fluid_core.errors import CheckpointMismatchError
from fluid_core.testing import EncodedDatasetSuite

LENGTH = 6


class Stamps:
    """A correct data set: item i is four tokens that hold i + 1, and i + 1 states of text."""

    caught_by = None

    def __init__(self, context):
        if context.image_size != (32, 32):
            raise CheckpointMismatchError("Expected images of 32 x 32 pixels.")
        self.image_size = context.image_size
        self.tokens = [torch.full((4, 3), 1.0 + index) for index in range(LENGTH)]

    def __len__(self):
        return LENGTH

    def __getitem__(self, index):
        if not 0 <= index < LENGTH:
            raise IndexError(index)
        return self.item(index)

    def item(self, index):
        """One stamp."""
        return EncodedImage(
            precomputed={"colours": self.tokens[index].clone()}, caption=f"stamp {index}", text=torch.ones(index + 1, 2)
        )

    def connect(self, tokenizer, text_encoder):
        """Whether the tokenizer fits."""
        raise CheckpointMismatchError("Expected the tokenizer of the stamps.")


class SaysAnotherSize(Stamps):
    """The size it states is not that of the images that were encoded."""

    caught_by = "test_is_a_data_set_of_encoded_images"

    def __init__(self, context):
        super().__init__(context)
        self.image_size = (4, 4)


class WithTheAxisOfABatch(Stamps):
    """One of the items has another shape than the others."""

    caught_by = "test_items_stack_to_batches"

    def item(self, index):
        """One stamp."""
        item = super().item(index)
        return item if index else EncodedImage(precomputed={"colours": self.tokens[0][None]}, caption="stamp 0")


class Draws(Stamps):
    """Tokens are drawn when the data set is built."""

    caught_by = "test_items_are_the_same_every_time"
    num_built = 0

    def __init__(self, context):
        super().__init__(context)
        Draws.num_built += 1
        self.tokens = [tokens + Draws.num_built for tokens in self.tokens]


class DrawsGlobally(Stamps):
    """Tokens come from the global generator."""

    caught_by = "test_items_do_not_depend_on_global_random_numbers"

    def item(self, index):
        """One stamp."""
        return EncodedImage(precomputed={"colours": torch.randn(4, 3)}, caption=f"stamp {index}")


class SharesMemory(Stamps):
    """Items are views of what the data set keeps."""

    caught_by = "test_items_may_be_changed_by_whoever_gets_them"

    def item(self, index):
        """One stamp."""
        return EncodedImage(precomputed={"colours": self.tokens[index]}, caption=f"stamp {index}")


class TakesAnyIndex(Stamps):
    """Indices wrap around."""

    caught_by = "test_indices_outside_raise"

    def __getitem__(self, index):
        return self.item(index % LENGTH)


class TakesAnyTokenizer(Stamps):
    """Nobody asks who made the items."""

    caught_by = "test_another_tokenizer_is_refused"

    def connect(self, tokenizer, text_encoder):
        """It does."""


BROKEN = [
    SaysAnotherSize,
    WithTheAxisOfABatch,
    Draws,
    DrawsGlobally,
    SharesMemory,
    TakesAnyIndex,
    TakesAnyTokenizer,
]


def suite_for(made):
    """A suite that tests `made`, a function from `DatasetContext` to a data set."""

    class Suite(EncodedDatasetSuite):
        def dataset(self, context):
            return made(context)

    return Suite


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_data_sets_are_rejected(broken, assert_rejected):
    """The test named by `caught_by` fails."""
    assert_rejected(suite_for(broken), broken.caught_by)


class TestStamps(EncodedDatasetSuite):
    """The data set that the broken ones are made of passes."""

    def dataset(self, context):
        """The correct one."""
        return Stamps(context)


def test_every_test_of_the_suite_catches_something():
    """No test of the suite is there for show: each has a broken data set that fails it."""
    tests = {name for name in dir(EncodedDatasetSuite) if name.startswith("test_")}
    assert tests == {broken.caught_by for broken in BROKEN}
