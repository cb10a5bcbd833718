"""Power laws: exponents that are known come back, and intervals hold what they promise."""

import numpy as np
import pytest

from fluid_core.errors import InvalidRequestError
from fluid_core.evaluation.scaling_law import correlation, extrapolate_to_largest, fit_power_law

FIVE_SIZES = np.geomspace(0.3e6, 6e6, 5)


def law(sizes, *, scale=3.0, exponent=0.1, floor=0.0, noise=0.0, rng=None):
    """Values of a power law in units of the smallest size, with relative errors."""
    values = floor + scale * (np.asarray(sizes) / np.min(sizes)) ** -exponent
    return values if rng is None else values * np.exp(noise * rng.standard_normal(len(values)))


@pytest.mark.parametrize("exponent", [0.01, 0.3, 1.5, -0.2])
def test_an_exact_law_is_found(exponent):
    """Without noise exponent, coefficient and prediction are those that made the values."""
    values = law(FIVE_SIZES, exponent=exponent)
    fit = fit_power_law(FIVE_SIZES, values)
    assert fit.law.exponent == pytest.approx(exponent, rel=1e-6)
    assert fit.law.coefficient == pytest.approx(3.0 * FIVE_SIZES[0] ** exponent, rel=1e-6)
    assert fit.law(1e9) == pytest.approx(3.0 * (1e9 / FIVE_SIZES[0]) ** -exponent, rel=1e-6)
    assert fit.exponent_interval.holds(fit.law.exponent)
    assert fit.r_squared == pytest.approx(1.0)


@pytest.mark.parametrize(("exponent", "floor"), [(0.4, 0.7), (0.1, 2.0), (1.2, 0.05)])
def test_an_exact_law_with_a_floor_is_found(exponent, floor):
    """The irreducible term is told apart from what falls."""
    fit = fit_power_law(FIVE_SIZES, law(FIVE_SIZES, exponent=exponent, floor=floor), with_floor=True)
    assert fit.law.exponent == pytest.approx(exponent, rel=1e-3)
    assert fit.law.floor == pytest.approx(floor, rel=1e-2)
    assert fit.floor_p_value < 1e-3


def test_a_plain_law_has_no_floor():
    """Where there is no irreducible term none is found, and the improvement is no more than chance."""
    rng = np.random.default_rng(1)
    fit = fit_power_law(FIVE_SIZES, law(FIVE_SIZES, noise=0.01, rng=rng), with_floor=True)
    assert fit.floor_p_value > 0.05
    assert fit.exponent_interval.holds(0.1)


def test_intervals_of_the_exponent_hold_it_as_often_as_they_say():
    """Of 600 noisy series about 95% of the 95% intervals hold the true exponent, and about 80% of the 80% ones."""
    rng = np.random.default_rng(0)
    held = {0.95: 0, 0.8: 0}
    for _ in range(600):
        values = law(FIVE_SIZES, noise=0.02, rng=rng)
        for confidence in held:
            held[confidence] += fit_power_law(FIVE_SIZES, values, confidence=confidence).exponent_interval.holds(0.1)
    # Three standard errors of a share of 600.
    assert held[0.95] / 600 == pytest.approx(0.95, abs=0.027)
    assert held[0.8] / 600 == pytest.approx(0.8, abs=0.05)


def test_predictions_of_the_largest_size_hold_it_as_often_as_they_say():
    """Of 600 noisy series the value held out lies in its 95% interval about 95% of the time."""
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(600):
        held_out = extrapolate_to_largest(FIVE_SIZES, law(FIVE_SIZES, noise=0.02, rng=rng))
        assert held_out.fit.sizes[-1] < held_out.size == FIVE_SIZES[-1]
        inside += held_out.inside
    assert inside / 600 == pytest.approx(0.95, abs=0.027)


@pytest.mark.slow
def test_intervals_of_laws_with_a_floor_hold_as_often_as_they_say():
    """The same of exponents and predictions of laws that level off, by profiling."""
    rng = np.random.default_rng(3)
    sizes = np.geomspace(0.3e6, 100e6, 6)
    exponents, predictions, number = 0, 0, 80
    for _ in range(number):
        values = law(sizes, scale=0.5, exponent=0.5, floor=0.5, noise=0.005, rng=rng)
        exponents += fit_power_law(sizes, values, with_floor=True).exponent_interval.holds(0.5)
        predictions += extrapolate_to_largest(sizes, values, with_floor=True).inside
    assert exponents / number == pytest.approx(0.95, abs=0.06)
    assert predictions / number == pytest.approx(0.95, abs=0.06)


def test_sizes_that_say_little_give_wide_intervals():
    """Noise as large as the fall leaves zero inside; a floor that could be anywhere leaves the exponent unbounded."""
    rng = np.random.default_rng(4)
    wide = fit_power_law(FIVE_SIZES, law(FIVE_SIZES, exponent=0.02, noise=0.1, rng=rng))
    assert wide.exponent_interval.holds(0.0)
    flat = fit_power_law(FIVE_SIZES, law(FIVE_SIZES, exponent=0.001, noise=0.05, rng=rng), with_floor=True)
    assert flat.exponent_interval.high is None


def test_repeated_sizes_count_once():
    """Seeds of one size are averaged in logarithms, and their deviation is told."""
    sizes = [1e6, 1e6, 2e6, 4e6]
    fit = fit_power_law(sizes, [2.0, 8.0, 3.0, 2.0])
    assert fit.sizes == (1e6, 2e6, 4e6)
    assert fit.values[0] == pytest.approx(4.0)
    assert fit.repeat_deviation == pytest.approx(np.log(2.0) * np.sqrt(2.0))
    assert fit.degrees_of_freedom == 1
    assert fit_power_law(sizes[1:], [4.0, 3.0, 2.0]).repeat_deviation is None


def test_too_few_sizes_are_refused_or_give_no_interval():
    """A line through two points fits always; one point makes no line."""
    assert fit_power_law([1e6, 2e6], [2.0, 1.0]).exponent_interval is None
    assert extrapolate_to_largest([1e6, 2e6, 4e6], [4.0, 2.0, 1.1]).inside is None
    with pytest.raises(InvalidRequestError, match="2 different sizes or more"):
        fit_power_law([1e6, 1e6], [2.0, 1.0])
    with pytest.raises(InvalidRequestError, match="3 different sizes"):
        fit_power_law([1e6, 2e6], [2.0, 1.0], with_floor=True)


@pytest.mark.parametrize(
    ("sizes", "values", "found"),
    [([1.0, 2.0], [1.0, -1.0], "found -1"), ([0.0, 2.0], [1.0, 1.0], "found 0"), ([1.0], [1.0, 2.0], "1 sizes")],
)
def test_what_no_power_law_has_is_refused(sizes, values, found):
    """Values and sizes must be above zero, and as many of one as of the other."""
    with pytest.raises(InvalidRequestError, match=found):
        fit_power_law(sizes, values)
    with pytest.raises(InvalidRequestError, match="confidence"):
        fit_power_law([1.0, 2.0], [2.0, 1.0], confidence=95.0)


def test_correlations_are_those_of_the_points():
    """Pearson sees lines, Spearman orders; a figure that never changes goes with nothing."""
    x = [1.0, 2.0, 3.0, 4.0, 5.0]
    found = correlation(x, [value**-3 for value in x])
    assert found.spearman == pytest.approx(-1.0)
    assert -1.0 < found.pearson < -0.6
    assert found.pearson == pytest.approx(np.corrcoef(x, np.asarray(x) ** -3.0)[0, 1])
    assert found.pearson_interval.low < found.pearson < found.pearson_interval.high
    assert correlation(x, [1.0] * 5) is None
    assert correlation(x[:2], x[:2]) is None
    assert correlation(x[:3], [3.0, 2.0, 1.5]).pearson_interval is None
