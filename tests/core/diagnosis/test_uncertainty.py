"""What a figure from few pictures can tell: standard errors, exact chances, and alarms that are false."""

import math

import pytest
import torch
from scipy.stats import fisher_exact

from fluid_core.diagnosis.uncertainty import (
    NUM_ERRORS,
    Estimate,
    as_plain,
    bootstrap_weights,
    chance_of_more,
    difference_of,
    mean_of,
)


@pytest.mark.parametrize("counts", [(0, 64, 0, 64), (7, 64, 0, 64), (3, 10, 5, 40), (10, 10, 0, 3), (2, 5, 3, 3)])
def test_the_chance_is_that_of_fishers_test(counts):
    """One-sided, for pictures that are affected more often."""
    first, num_first, second, num_second = counts
    table = [[first, num_first - first], [second, num_second - second]]
    expected = fisher_exact(table, alternative="greater").pvalue
    assert chance_of_more(*counts) == pytest.approx(expected, abs=1e-9)


def test_differences_that_are_chance_are_hardly_ever_certain():
    """Of 400 pairs of samples of the same numbers, a few exceed three standard errors; a real difference does."""
    generator = torch.Generator().manual_seed(0)
    pairs = torch.randn(400, 2, 32, generator=generator)
    alarms = [difference_of(one, other).above(0.0) for one, other in pairs]
    assert sum(alarms) <= 4
    assert difference_of(pairs[0, 0] + 2.0, pairs[0, 1]).above(1.0)
    assert not difference_of(pairs[0, 0] + 2.0, pairs[0, 1]).above(5.0)


def test_the_bootstrap_finds_the_standard_error_of_a_mean():
    """For a plain mean there is a formula to compare with."""
    values = torch.randn(50, generator=torch.Generator().manual_seed(1)).double()
    weights = bootstrap_weights(50)
    assert torch.allclose(weights.sum(dim=1), torch.ones(len(weights), dtype=torch.float64))
    assert float((weights @ values).std()) == pytest.approx(mean_of(values).error, rel=0.2)
    assert torch.equal(weights, bootstrap_weights(50))


def test_one_picture_is_never_certain():
    """Its error is infinite, and null in a record."""
    lone = mean_of(torch.ones(1))
    assert lone.error == math.inf
    assert not lone.above(0.0)
    assert as_plain({"rows": [lone]}) == {"rows": [{"value": 1.0, "standard_error": None}]}
    assert Estimate(value=1.0, error=0.1).upper == pytest.approx(1.0 + 0.1 * NUM_ERRORS)
