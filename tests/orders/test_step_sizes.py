"""The cuts of an order: every step predicts something, and all steps together everything."""

import math
import random
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fluid_core.errors import InvalidRequestError
from fluid_orders.options import RandomOrderOptions, StepCurve
from fluid_orders.step_sizes import cosine_step_sizes, step_sizes_on_curve, steps_of, unknown_after_steps

CURVES = get_args(StepCurve)


def sizes_for_all_lengths(num_steps, curve):
    """Lengths from `num_steps` to 1024, and the step sizes of each."""
    lengths = torch.arange(num_steps, 1025)
    remaining = unknown_after_steps(lengths, num_steps, curve)
    return lengths, torch.cat([lengths[:, None], remaining], dim=1).diff(dim=1).neg()


def check_all_lengths(num_steps, curve):
    """No step is empty, and the steps of a length are that many tokens together."""
    lengths, sizes = sizes_for_all_lengths(num_steps, curve)
    assert sizes.shape == (1025 - num_steps, num_steps)
    assert int(sizes.min()) >= 1
    assert torch.equal(sizes.sum(dim=1), lengths)


@pytest.mark.parametrize("curve", CURVES)
def test_every_length_with_some_numbers_of_steps(curve):
    """For every length to 1024, and every number of steps to 64 and some beyond."""
    for num_steps in [*range(1, 65), *range(65, 1024, 97), 1023, 1024]:
        check_all_lengths(num_steps, curve)


@pytest.mark.slow
@pytest.mark.parametrize("curve", CURVES)
def test_every_length_with_every_number_of_steps(curve):
    """For all 524,800 pairs of a length up to 1024 and a number of steps that it allows.

    Those with up to 64 steps are in the test above.
    """
    for num_steps in range(65, 1025):
        check_all_lengths(num_steps, curve)


@pytest.mark.parametrize("curve", CURVES)
def test_one_request_is_answered_as_all_lengths_are(curve):
    """`step_sizes_on_curve` of one length are those computed for all lengths together, as whole numbers."""
    chosen = random.Random(0)
    for num_steps in (1, 2, 7, 64, 300, 1024):
        lengths, sizes = sizes_for_all_lengths(num_steps, curve)
        for row in {0, len(lengths) - 1, *(chosen.randrange(len(lengths)) for _ in range(5))}:
            found = step_sizes_on_curve(int(lengths[row]), num_steps, curve)
            assert found == tuple(sizes[row].tolist())
            assert all(type(size) is int for size in found)


def test_the_cosine_is_that_of_the_predecessor_for_all_lengths():
    """floor(length * cos) tokens stay unknown after each step, or one fewer than before: computed in a second way."""
    for num_steps in (1, 2, 3, 6, 9, 12, 63, 64, 100, 255, 256, 512, 1023):
        lengths, sizes = sizes_for_all_lengths(num_steps, "cosine")
        remaining = lengths.numpy().copy()
        for step in range(1, num_steps):
            limit = np.floor(lengths.numpy() * math.cos(math.pi / 2 * step / num_steps)).astype(int)
            after = np.minimum(remaining - 1, limit)
            assert np.array_equal(sizes[:, step - 1].numpy(), remaining - after)
            remaining = after
        assert np.array_equal(sizes[:, -1].numpy(), remaining)


def test_the_curves_are_what_their_names_say():
    """Constant sizes are even, linear ones proportional to the step, arccos the cosine with its axes swapped."""
    assert step_sizes_on_curve(256, 64, "constant") == (4,) * 64
    assert step_sizes_on_curve(10, 4, "constant") == (3, 2, 3, 2)
    # 1 - (k / 10)^2 of 100 tokens stay: the sizes are the odd numbers.
    assert step_sizes_on_curve(100, 10, "linear") == (1, 3, 5, 7, 9, 11, 13, 15, 17, 19)
    assert step_sizes_on_curve(90, 2, "arccos") == (30, 60)
    assert step_sizes_on_curve(90, 3, "cosine") == (13, 32, 45)
    arccos, cosine = step_sizes_on_curve(1024, 32, "arccos"), step_sizes_on_curve(1024, 32, "cosine")
    assert arccos[0] > 4 * cosine[0]
    assert arccos[-1] > 2 * cosine[-1]


@settings(deadline=None)
@given(st.integers(1, 4096), st.data())
def test_late_steps_of_a_cosine_are_large(num_unknown: int, data: st.DataObject):
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


@pytest.mark.parametrize("curve", CURVES)
def test_more_steps_than_tokens_are_refused(curve):
    """Steps without a token to predict are an error that names both numbers."""
    with pytest.raises(InvalidRequestError, match="num_steps=65 for 64 unknown tokens"):
        step_sizes_on_curve(64, 65, curve)


@pytest.mark.parametrize("num_steps", [0, -3])
def test_fewer_than_one_step_is_refused(num_steps: int):
    """Zero or a negative number of steps has no meaning."""
    with pytest.raises(InvalidRequestError, match=f"at least 1 generation step, found num_steps={num_steps}"):
        cosine_step_sizes(64, num_steps)


def test_an_unknown_curve_is_refused():
    """By the function and by the options, which name the curves there are."""
    unchecked = getattr(step_sizes_on_curve, "__wrapped__", step_sizes_on_curve)
    with pytest.raises(InvalidRequestError, match=r"'arccos', 'constant', 'cosine', 'linear'.*found 'square'"):
        unchecked(64, 8, "square")
    with pytest.raises(ValueError, match=r"must be one of .*'linear'.* found 'square'"):
        RandomOrderOptions(steps="square")


def test_sizes_given_one_by_one():
    """They are taken as they are where they fit; nothing unknown takes no steps."""
    options = RandomOrderOptions(steps=[1, 2, 61])
    assert options.steps == (1, 2, 61)
    assert steps_of(options, 64, None) == (1, 2, 61)
    assert steps_of(options, 64, 3) == (1, 2, 61)
    assert steps_of(options, 0, None) == ()


def test_sizes_that_do_not_fit_are_refused():
    """Other numbers of steps or unknown tokens than theirs, and impossible requests, are errors with both numbers."""
    options = RandomOrderOptions(steps=(1, 2, 61))
    with pytest.raises(InvalidRequestError, match="take 3 steps, found num_steps=4"):
        steps_of(options, 64, 4)
    with pytest.raises(InvalidRequestError, match="predict 64 tokens, found 40 unknown"):
        steps_of(options, 40, None)
    for num_steps in (0, 65):
        with pytest.raises(InvalidRequestError, match=f"found num_steps={num_steps}"):
            steps_of(options, 64, num_steps)


@pytest.mark.parametrize("steps", [(), (1, 0, 3), (4, -1), (1.5, 2), (True, 2), 64, None])
def test_sizes_that_are_none_are_refused_by_the_options(steps: object):
    """Empty steps, broken numbers and anything but a sequence."""
    with pytest.raises(ValueError, match="must be step sizes of 1 or more"):
        RandomOrderOptions(steps=steps)


def test_a_default_number_of_steps_beside_sizes_must_agree():
    """Two numbers of steps in one set of options would leave open which counts."""
    assert RandomOrderOptions(steps=(1, 2), num_steps=2).num_steps == 2
    with pytest.raises(ValueError, match="'num_steps' must be left out or 2"):
        RandomOrderOptions(steps=(1, 2), num_steps=3)
