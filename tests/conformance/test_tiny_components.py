"""The reference implementations in `fluid_core.testing.tiny` keep every contract."""

import pytest
import torch

from fluid_core import FluidPipeline
from fluid_core.testing import DatasetSuite, HeadSuite, OrderSuite, TextEncoderSuite, TokenizerSuite
from fluid_core.testing.example_tokens import example_token_space
from fluid_core.testing.tiny import (
    TinyCategoricalHead,
    TinyCausalAnyOrder,
    TinyColourCodes,
    TinyFlags,
    TinyFlagStream,
    TinyGaussianHead,
    TinyMeanColours,
    TinyRandomOrder,
    TinyRasterOrder,
    TinySurestFirstOrder,
    TinyTextEncoder,
    tiny_model,
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


class TestTinyFlagStream(DatasetSuite):
    """The data set of flags as a stream."""

    def dataset(self, context):
        """Built by hand."""
        return TinyFlagStream(context)


@pytest.mark.parametrize("order", [TinyRasterOrder, TinyRandomOrder, TinyCausalAnyOrder, TinySurestFirstOrder])
@pytest.mark.parametrize("tokenizer", [TinyMeanColours, TinyColourCodes])
def test_tiny_models_learn_and_draw(tokenizer, order):
    """Whole models of tiny parts lower their loss on one picture, and draw pictures that follow the seed."""
    model = tiny_model(tokenizer=tokenizer(), order=order())
    images = torch.ones(8, 3, 8, 8) * torch.tensor([0.9, -0.9, 0.9])[:, None, None]
    optimizer = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), lr=3e-3)
    losses = []
    for step in range(10):
        loss = model.loss(images, ["purple"] * 8, generator=torch.Generator().manual_seed(step)).mean
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.2
    pipeline = FluidPipeline(model)
    first = pipeline("purple", seed=1, guidance_scale=2.0, output_type="pt").images
    assert tuple(first.shape) == (1, 3, 8, 8)
    assert torch.equal(pipeline("purple", seed=1, guidance_scale=2.0, output_type="pt").images, first)


def test_tiny_models_follow_their_seed():
    """The same seed gives the same weights, and torch's global generator is left where it was."""
    before = torch.get_rng_state()
    first, again, other = tiny_model(seed=1), tiny_model(seed=1), tiny_model(seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.head.mean.weight, again.head.mean.weight)
    assert not torch.equal(first.head.mean.weight, other.head.mean.weight)
