"""Running mean and variance."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fluid_core.channel_moments import ChannelMoments
from fluid_core.errors import InvalidRequestError


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 5))
def test_any_split_into_batches_gives_the_whole(sizes, seed):
    """Also far from zero, where sums of squares would lose everything."""
    generator = torch.Generator().manual_seed(seed)
    vectors = 1e4 + torch.randn(sum(sizes), 3, generator=generator, dtype=torch.float64)
    moments = ChannelMoments(3)
    for batch in vectors.split(sizes):
        moments.add(batch)
    assert moments.count == len(vectors)
    torch.testing.assert_close(moments.mean, vectors.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(moments.variance, vectors.var(0, correction=0), rtol=1e-6, atol=1e-9)


def test_nothing_and_nan_are_refused():
    """A batch that would poison the rest is refused, and what was counted before stays."""
    moments = ChannelMoments(2)
    moments.add(torch.ones(3, 2))
    with pytest.raises(InvalidRequestError, match="found 0 vectors"):
        moments.add(torch.empty(0, 2))
    with pytest.raises(InvalidRequestError, match="1 values that are NaN"):
        moments.add(torch.tensor([[0.0, float("inf")]]))
    assert moments.count == 3
    assert moments.mean.tolist() == [1.0, 1.0]
