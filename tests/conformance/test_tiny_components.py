"""The reference implementations in `fluid_core.testing.tiny` keep every contract."""

import pytest

from fluid_core.testing import DatasetSuite, HeadSuite, OrderSuite, TextEncoderSuite, TokenizerSuite
from fluid_core.testing.example_tokens import example_token_space
from fluid_core.testing.tiny import (
    TinyCategoricalHead,
    TinyCausalAnyOrder,
    TinyColourCodes,
    TinyFlags,
    TinyGaussianHead,
    TinyMeanColours,
    TinyRandomOrder,
    TinyRasterOrder,
    TinySurestFirstOrder,
    TinyTextEncoder,
)
from fluid_core.token_space import Grid


class TestTinyGaussianHead(HeadSuite):
    """A head for continuous tokens, built by hand."""

    def head(self, context):
        """The head."""
        return TinyGaussianHead(context)

    def token_space(self):
        """Vectors."""
        return example_token_space("continuous")


class TestTinyCategoricalHead(HeadSuite):
    """A head for discrete tokens, built by hand."""

    def head(self, context):
        """The head."""
        return TinyCategoricalHead(context)

    def token_space(self):
        """Ids."""
        return example_token_space("discrete")


class TestTinyOrders(OrderSuite):
    """Causal and bidirectional, fixed and adaptive."""

    @pytest.fixture(autouse=True, params=[TinyRasterOrder, TinyRandomOrder, TinyCausalAnyOrder, TinySurestFirstOrder])
    def _choose(self, request):
        self._make = request.param

    def order(self):
        """The order of this run."""
        return self._make()


class TestTinyMeanColours(TokenizerSuite):
    """A tokenizer that learns from images, on a grid that is not square."""

    reconstruction_error = 0.4

    def tokenizer(self):
        """The tokenizer."""
        return TinyMeanColours(grid=Grid(height=2, width=3))


class TestTinyColourCodes(TokenizerSuite):
    """A tokenizer that learns nothing."""

    reconstruction_error = 0.7

    def tokenizer(self):
        """The tokenizer."""
        return TinyColourCodes()


class TestTinyTextEncoder(TextEncoderSuite):
    """A text encoder that trains with the model."""

    def text_encoder(self):
        """The encoder."""
        return TinyTextEncoder()


class TestTinyFlags(DatasetSuite):
    """A data set without a judge."""

    def dataset(self, context):
        """The data."""
        return TinyFlags(context)
