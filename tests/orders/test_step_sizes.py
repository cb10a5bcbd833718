"""The cuts of an order: every step predicts something, and all steps together everything."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluid_core.errors import InvalidRequestError
from fluid_orders.step_sizes import cosine_step_sizes


def _assert_valid(num_unknown: int, num_steps: int) -> None:
    sizes = cosine_step_sizes(num_unknown, num_steps)
    assert len(sizes) == num_steps
    assert min(sizes) >= 1
    assert sum(sizes) == num_unknown


def test_every_number_of_steps_for_short_sequences():
    """For 1 to 160 tokens and every number of steps, sizes are positive and sum to the tokens."""
    for num_unknown in range(1, 161):
        for num_steps in range(1, num_unknown + 1):
            _assert_valid(num_unknown, num_steps)


def test_every_length_up_to_1024():
    """For every length to 1024: the extremes, the default of 64, and some numbers of steps in between."""
    chosen = random.Random(0)
    for num_unknown in range(1, 1025):
        between = [chosen.randint(1, num_unknown) for _ in range(3)]
        for num_steps in {1, min(64, num_unknown), max(1, num_unknown - 1), num_unknown, *between}:
            _assert_valid(num_unknown, num_steps)


@pytest.mark.slow
def test_every_length_and_every_number_of_steps():
    """The same for all 524,800 pairs of a length up to 1024 and a number of steps that it allows.

    A step's size is computed here in a second way: the unknown tokens after step i are the smallest value that the
    cosine allowed so far, where each step lowers the limit by at least one.
    """
    for num_steps in range(1, 1025):
        lengths = np.arange(num_steps, 1025)[:, None]
        steps = np.arange(1, num_steps + 1)
        limits = np.floor(lengths * np.cos(np.pi / 2 * steps / num_steps))
        limits[:, -1] = 0
        # remaining_i = min(remaining_(i-1) - 1, limit_i), starting at the length, becomes a running minimum.
        remaining = np.minimum(np.minimum.accumulate(limits + steps, axis=1), lengths) - steps
        sizes = -np.diff(np.concatenate([lengths, remaining], axis=1), axis=1)
        assert (sizes >= 1).all()
        assert (sizes.sum(axis=1) == lengths[:, 0]).all()
        assert (remaining[:, -1] == 0).all()
        for row in range(0, len(lengths), 101):
            expected = tuple(sizes[row].astype(int).tolist())
            assert cosine_step_sizes(int(lengths[row, 0]), num_steps) == expected


@settings(deadline=None)
@given(st.integers(1, 4096), st.data())
def test_late_steps_are_large(num_unknown: int, data: st.DataObject):
    """The first half of the steps predicts less than the second, unless every step has a single token."""
    num_steps = data.draw(st.integers(1, num_unknown))
    sizes = cosine_step_sizes(num_unknown, num_steps)
    half = num_steps // 2
    assert sum(sizes[:half]) <= sum(sizes[num_steps - half :])
    # After every step, no fewer tokens are known than the cosine asks for.
    known = 0
    for step, size in enumerate(sizes[:-1], start=1):
        known += size
        assert known >= num_unknown * (1 - math.cos(math.pi / 2 * step / num_steps)) - 1e-6


def test_more_steps_than_tokens_are_refused():
    """Steps without a token to predict are an error that names both numbers."""
    with pytest.raises(InvalidRequestError, match="num_steps=65 for 64 unknown tokens"):
        cosine_step_sizes(64, 65)


@pytest.mark.parametrize("num_steps", [0, -3])
def test_fewer_than_one_step_is_refused(num_steps: int):
    """Zero or a negative number of steps has no meaning."""
    with pytest.raises(InvalidRequestError, match=f"at least 1 generation step, found num_steps={num_steps}"):
        cosine_step_sizes(64, num_steps)
