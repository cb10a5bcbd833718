"""What every head refuses, whichever it is."""

import pytest
import torch

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import Guidance, SamplerSettings, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import ContinuousTokens, DiscreteTokens, Grid
from fluid_heads import DiffusionHead, DiffusionOptions, FlowHead, FlowOptions, SoftmaxHead, SoftmaxOptions

WIDTH = 12
GRID = Grid(height=2, width=2)
VECTORS = ContinuousTokens(grid=GRID, channels=3)
HEADS = {
    "diffusion": lambda: DiffusionHead(VECTORS, WIDTH, DiffusionOptions(width=8, depth=1)),
    "flow": lambda: FlowHead(VECTORS, WIDTH, FlowOptions(width=8, depth=1)),
    "softmax": lambda: SoftmaxHead(
        DiscreteTokens(grid=GRID, vocabulary_size=7), WIDTH, SoftmaxOptions(tied_weights=False)
    ),
}


def keys(count: int) -> KeyedRandom:
    """A random source."""
    return KeyedRandom(torch.arange(count) + 3)


@pytest.mark.parametrize("name", HEADS)
def test_a_loss_needs_as_many_of_everything(name: str) -> None:
    """One hidden vector, or one row of random numbers, does not silently serve several tokens."""
    head = HEADS[name]()
    target = torch.zeros(5, dtype=torch.int64) if name == "softmax" else torch.zeros(5, 3)
    loss = getattr(head.loss, "__wrapped__", None)
    loss = head.loss if loss is None else loss.__get__(head)
    for num_vectors, num_keys in ((1, 5), (5, 1), (4, 5)):
        with pytest.raises(InvalidRequestError, match=f"found {num_vectors} of width 12 for 5 tokens and {num_keys} r"):
            loss(torch.randn(num_vectors, WIDTH), target, random=keys(num_keys))
    with pytest.raises(InvalidRequestError, match=r"vectors of width 12 as tokens .* of width 9"):
        loss(torch.randn(5, 9), target, random=keys(5))
    assert loss(torch.randn(5, WIDTH), target, random=keys(5)).total.shape == (5,)


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize("name", HEADS)
def test_temperatures_have_a_largest(name: str, backend: str) -> None:
    """Up to it tokens are finite; beyond it, where numbers would overflow, is an error."""
    sampler = HEADS[name]().sampler(SamplerSettings(backend=backend))
    condition = torch.randn(2, WIDTH)
    drawn = sampler(condition, SamplingRequest(random=keys(2), temperature=1e4))
    assert bool(torch.isfinite(drawn.float()).all())
    with pytest.raises(InvalidRequestError, match="0 or more, and 10000 at most, found 1e\\+39"):
        sampler(condition, SamplingRequest(random=keys(2), temperature=1e39))


@pytest.mark.parametrize("name", HEADS)
def test_guidance_needs_the_other_vectors(name: str) -> None:
    """Guidance without hidden vectors of another text says what is missing."""
    sampler = HEADS[name]().sampler(SamplerSettings())
    guidance = object.__new__(Guidance)
    object.__setattr__(guidance, "negative", None)
    object.__setattr__(guidance, "scale", torch.ones(2))
    request = SamplingRequest(random=keys(2))
    object.__setattr__(request, "guidance", guidance)
    with pytest.raises(InvalidRequestError, match=r"without the text .* found NoneType"):
        sampler(torch.randn(2, WIDTH), request)
