"""Power laws of a figure over model size, with intervals, and how well they foresee a size they have not seen.

Two laws: `a * N^-b`, a straight line between logarithms, and `floor + a * N^-b`, which levels off at an irreducible
value. Errors are taken as relative ones, equal at all sizes. Intervals are not bootstrapped: five sizes are too few
for that. They follow from the t and F distributions, exactly for the first law, and for the second by profiling the sum
of squares, which keeps an exponent that the sizes can not pin down from looking certain.
"""

import math
from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from fluid_core.errors import InvalidRequestError

Array = NDArray[np.float64]
Numbers = NDArray[Any] | Sequence[float | int] | float | int
"""One number or several."""

_EXPONENTS = np.geomspace(1e-4, 10.0, 600)
_NEXT_TO_NOTHING = 1e-24


@attrs.frozen(kw_only=True)
class PowerLaw:
    """`value = floor + scale * (size / reference)^-exponent`."""

    exponent: float
    """How fast the value falls: doubling the size divides what is above the floor by 2^exponent."""

    scale: float
    """The value above the floor at the reference size."""

    reference: float
    """The geometric mean of the sizes that were fitted: the law is written from there, since `N^-b` at N = 1 is far
    from everything measured."""

    floor: float = 0.0
    """What no size gets below; 0 in the law without one."""

    def __call__(self, size: Numbers) -> Array:
        """The value at each size."""
        sizes = np.asarray(size, dtype=np.float64)
        return np.asarray(self.floor + self.scale * (sizes / self.reference) ** -self.exponent)

    @property
    def coefficient(self) -> float:
        """The `a` of `floor + a * N^-b`."""
        return float(self.scale * self.reference**self.exponent)

    def __str__(self) -> str:
        floor = f"{self.floor:.4g} + " if self.floor else ""
        return f"{floor}{self.coefficient:.4g} * N^-{self.exponent:.4g}"


@attrs.frozen(kw_only=True)
class Interval:
    """Bounds that hold with the confidence asked for; None is a side on which the data set no bound."""

    low: float | None
    high: float | None

    def holds(self, value: float) -> bool:
        """Whether `value` is inside."""
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


@attrs.frozen(kw_only=True)
class PowerLawFit:
    """A fitted law, what is known of its exponent, and the points it was fitted to."""

    law: PowerLaw
    exponent_interval: Interval | None
    """None where there are no more sizes than parameters of the law."""

    confidence: float
    r_squared: float
    """Share of the variance of the logarithms of the values that the law explains."""

    sizes: tuple[float, ...]
    """Different sizes, from the smallest."""

    values: tuple[float, ...]
    """The value at each: the geometric mean of repeated ones, such as those of several seeds."""

    relative_errors: tuple[float, ...]
    """Value over law, minus one, at each size."""

    repeat_deviation: float | None
    """Standard deviation of the logarithms of repeated values, pooled over sizes; None without repeats. Errors of the
    law far above it mean that the values do not follow the law, and not that they are noisy."""

    floor_p_value: float | None = None
    """How likely an improvement by a floor is at least as large as found if there is none (F test); None for the law
    without one, or with too few sizes to tell."""

    has_floor: bool = False

    @property
    def degrees_of_freedom(self) -> int:
        """Sizes beyond the number of parameters."""
        return len(self.sizes) - (3 if self.has_floor else 2)

    def prediction_interval(self, size: float) -> Interval | None:
        """Where a further value at `size` lies with the confidence of the fit; None without degrees of freedom."""
        if self.degrees_of_freedom < 1:
            return None
        problem = _Problem(self.sizes, self.values)
        predict = _floor_prediction if self.has_floor else _line_prediction
        return predict(problem, self.law, size, self.confidence)


@attrs.frozen(kw_only=True)
class Extrapolation:
    """A law fitted to all sizes but the largest, against the value found there."""

    fit: PowerLawFit
    size: float
    found: float
    predicted: float
    interval: Interval | None

    @property
    def relative_error(self) -> float:
        """Found over predicted, minus one."""
        return self.found / self.predicted - 1.0

    @property
    def inside(self) -> bool | None:
        """Whether the value found lies in the interval; None where there is none."""
        return None if self.interval is None else self.interval.holds(self.found)


@attrs.frozen(kw_only=True)
class Correlation:
    """How two figures go together over the same models."""

    pearson: float
    pearson_interval: Interval | None
    """By Fisher's transformation; None for fewer than four points."""

    spearman: float
    num_points: int


def fit_power_law(
    sizes: Numbers, values: Numbers, *, with_floor: bool = False, confidence: float = 0.95
) -> PowerLawFit:
    """The law of `values` over `sizes`, pairs in any order.

    Several values of one size become their geometric mean, and every size counts the same: repeats of a size share its
    deviation from the law, and so say nothing about it. A value that grows with size has a negative exponent in the law
    without a floor; the one with a floor takes none. Raises `InvalidRequestError` for sizes or values that are not
    positive and finite, for fewer different sizes than parameters, and for a confidence outside 0 to 1.
    """
    if not 0.0 < confidence < 1.0:
        raise InvalidRequestError(f"Expected a confidence between 0 and 1, such as 0.95, found {confidence}.")
    x, y, deviation = _averaged(sizes, values)
    needed = 3 if with_floor else 2
    if len(x) < needed:
        wanted = "a power law with an irreducible term" if with_floor else "a power law"
        raise InvalidRequestError(f"Expected {needed} different sizes or more for {wanted}, found {len(x)}.")
    problem = _Problem(x, y)
    p_value = None
    if with_floor:
        law, interval, p_value = _fit_floor(problem, confidence)
    else:
        law, interval = _fit_line(problem, confidence)
    spread = float(((np.log(y) - np.log(y).mean()) ** 2).sum())
    unexplained = float(((np.log(y) - np.log(law(x))) ** 2).sum())
    return PowerLawFit(
        law=law,
        exponent_interval=interval,
        confidence=confidence,
        r_squared=1.0 - unexplained / spread if spread > _NEXT_TO_NOTHING else 1.0,
        sizes=tuple(x.tolist()),
        values=tuple(y.tolist()),
        relative_errors=tuple((y / law(x) - 1.0).tolist()),
        repeat_deviation=deviation,
        floor_p_value=p_value,
        has_floor=with_floor,
    )


def extrapolate_to_largest(
    sizes: Numbers, values: Numbers, *, with_floor: bool = False, confidence: float = 0.95
) -> Extrapolation:
    """Fit all sizes but the largest and predict that one. Raises as `fit_power_law` does on what remains."""
    x, y, _ = _averaged(sizes, values)
    largest = float(x.max())
    every, smaller = np.asarray(values, dtype=np.float64), np.asarray(sizes, dtype=np.float64) < largest
    fit = fit_power_law(np.asarray(sizes)[smaller], every[smaller], with_floor=with_floor, confidence=confidence)
    return Extrapolation(
        fit=fit,
        size=largest,
        found=float(y[-1]),
        predicted=float(fit.law(largest)),
        interval=fit.prediction_interval(largest),
    )


def correlation(
    first: Sequence[float | int], second: Sequence[float | int], *, confidence: float = 0.95
) -> Correlation | None:
    """Pearson's and Spearman's correlation of two figures of the same models.

    None where there is nothing to correlate: fewer than three points, or a figure that is the same everywhere. Raises
    `InvalidRequestError` for different numbers of points.
    """
    if len(first) != len(second):
        raise InvalidRequestError(f"Expected two figures of the same models, found {len(first)} and {len(second)}.")
    if len(first) < 3 or len(set(first)) == 1 or len(set(second)) == 1:
        return None
    found = stats.pearsonr(first, second)
    bounds = found.confidence_interval(confidence) if len(first) > 3 else None
    return Correlation(
        pearson=float(found.statistic),
        pearson_interval=None if bounds is None else Interval(low=float(bounds.low), high=float(bounds.high)),
        spearman=float(stats.spearmanr(first, second).statistic),
        num_points=len(first),
    )


def _averaged(sizes: Numbers, values: Numbers) -> tuple[Array, Array, float | None]:
    """Different sizes in ascending order, the geometric mean at each, and the deviation of repeats."""
    x, y = np.asarray(sizes, dtype=np.float64).ravel(), np.asarray(values, dtype=np.float64).ravel()
    if len(x) != len(y) or not len(x):
        raise InvalidRequestError(f"Expected a value for each size, found {len(x)} sizes and {len(y)} values.")
    bad = [float(one) for one in (*x, *y) if not math.isfinite(one) or one <= 0.0]
    if bad:
        raise InvalidRequestError(f"Expected sizes and values above zero for a power law, found {bad[0]}.")
    different = np.unique(x)
    logs = [np.log(y[x == size]) for size in different]
    num_repeats = sum(len(group) - 1 for group in logs)
    squares = sum(float(((group - group.mean()) ** 2).sum()) for group in logs)
    means = np.exp(np.asarray([group.mean() for group in logs]))
    return different, means, math.sqrt(squares / num_repeats) if num_repeats else None


class _Problem:
    """Sizes, scaled to a geometric mean of one, and their values."""

    def __init__(self, sizes: Numbers, values: Numbers) -> None:
        self.sizes, self.values = np.asarray(sizes, dtype=np.float64), np.asarray(values, dtype=np.float64)
        self.reference = float(np.exp(np.log(self.sizes).mean()))
        self.scaled = self.sizes / self.reference

    def squares(self, exponents: Numbers) -> tuple[Array, Array, Array]:
        """For each exponent the best floor and scale, neither below zero, and the sum of squared relative errors."""
        powers = self.scaled[None, :] ** -np.atleast_1d(np.asarray(exponents, dtype=np.float64))[:, None]
        # Relative errors: everything is divided by the value found. The target is then 1 everywhere.
        ones, powers = 1.0 / self.values[None, :], powers / self.values[None, :]
        aa, ab, bb = (ones * ones).sum(-1), (ones * powers).sum(-1), (powers * powers).sum(-1)
        a1, b1 = ones.sum(-1), powers.sum(-1)
        determinant = aa * bb - ab * ab
        with np.errstate(divide="ignore", invalid="ignore"):
            floor = (a1 * bb - b1 * ab) / determinant
            scale = (b1 * aa - a1 * ab) / determinant
        flat = ~np.isfinite(floor + scale) | (scale < 0)
        floor, scale = np.where(flat, a1 / aa, floor), np.where(flat, 0.0, scale)
        sinks = floor < 0
        floor, scale = np.where(sinks, 0.0, floor), np.where(sinks, b1 / bb, scale)
        errors = floor[:, None] * ones + scale[:, None] * powers - 1.0
        return floor, scale, (errors**2).sum(-1)

    def best(self, *, highest: float = _EXPONENTS[-1]) -> tuple[float, float]:
        """The best exponent for a law with a floor, and its sum of squares."""
        grid = _EXPONENTS[highest >= _EXPONENTS]
        index = int(np.argmin(self.squares(grid)[2]))
        low, high = grid[max(0, index - 1)], grid[min(len(grid) - 1, index + 1)]
        found = optimize.minimize_scalar(
            lambda exponent: float(self.squares(exponent)[2][0]), bounds=(low, high), options={"xatol": 1e-9}
        )
        at_grid = float(self.squares(grid[index])[2][0])
        return (float(found.x), float(found.fun)) if found.fun < at_grid else (float(grid[index]), at_grid)


def _fit_line(problem: _Problem, confidence: float) -> tuple[PowerLaw, Interval | None]:
    """Least squares between logarithms."""
    slope, intercept, error = _line(problem)
    law = PowerLaw(exponent=-slope, scale=math.exp(intercept), reference=problem.reference)
    freedom = len(problem.sizes) - 2
    if freedom < 1:
        return law, None
    reach = float(stats.t.ppf(0.5 + confidence / 2, freedom)) * error / math.sqrt(_spread(problem))
    return law, Interval(low=-slope - reach, high=-slope + reach)


def _line(problem: _Problem) -> tuple[float, float, float]:
    """Slope, value at the reference size, and standard deviation about the line, of the logarithms."""
    x, y = np.log(problem.scaled), np.log(problem.values)
    slope = float((x * y).sum() / (x * x).sum())
    intercept = float(y.mean())
    freedom = len(x) - 2
    squares = float(((y - intercept - slope * x) ** 2).sum())
    return slope, intercept, math.sqrt(squares / freedom) if freedom > 0 else 0.0


def _spread(problem: _Problem) -> float:
    return float((np.log(problem.scaled) ** 2).sum())


def _line_prediction(problem: _Problem, law: PowerLaw, size: float, confidence: float) -> Interval:
    _, _, error = _line(problem)
    number = len(problem.sizes)
    distance = math.log(size / problem.reference) ** 2 / _spread(problem)
    reach = float(stats.t.ppf(0.5 + confidence / 2, number - 2)) * error * math.sqrt(1.0 + 1.0 / number + distance)
    predicted = float(law(size))
    return Interval(low=predicted * math.exp(-reach), high=predicted * math.exp(reach))


def _fit_floor(problem: _Problem, confidence: float) -> tuple[PowerLaw, Interval | None, float | None]:
    exponent, least = problem.best()
    floor, scale, _ = problem.squares(exponent)
    law = PowerLaw(exponent=exponent, scale=float(scale[0]), reference=problem.reference, floor=float(floor[0]))
    freedom = len(problem.sizes) - 3
    if freedom < 1:
        return law, None, None
    limit = _limit(least, freedom, confidence)
    inside = np.flatnonzero(problem.squares(_EXPONENTS)[2] <= limit)

    def crossing(outer: int, inner: int) -> float:
        """The exponent between two of the grid at which the sum of squares crosses the limit."""
        return float(
            optimize.brentq(lambda b: float(problem.squares(b)[2][0]) - limit, _EXPONENTS[outer], _EXPONENTS[inner])
        )

    if len(inside) == 0:
        interval = Interval(low=exponent, high=exponent)
    else:
        first, last = int(inside[0]), int(inside[-1])
        interval = Interval(
            low=None if first == 0 else crossing(first - 1, first),
            high=None if last == len(_EXPONENTS) - 1 else crossing(last + 1, last),
        )
    # The law without a floor, measured by the same relative errors.
    plain = _least_without_floor(problem)
    gain = max(0.0, plain - least)
    p_value = 1.0 if gain <= _NEXT_TO_NOTHING else float(stats.f.sf(gain * freedom / max(least, 1e-300), 1, freedom))
    return law, interval, p_value


def _least_without_floor(problem: _Problem) -> float:
    def squares(exponent: float) -> float:
        powers = problem.scaled**-exponent / problem.values
        return float(((powers.sum() / (powers * powers).sum() * powers - 1.0) ** 2).sum())

    start = max(-_line(problem)[0], 1e-6)
    return float(optimize.minimize_scalar(squares, bracket=(0.9 * start, 1.1 * start + 1e-6)).fun)


def _limit(least: float, freedom: int, confidence: float) -> float:
    """Sum of squares up to which a value of one parameter is believed (F test against the best one)."""
    return float(least * (1.0 + stats.f.ppf(confidence, 1, freedom) / freedom))


def _floor_prediction(problem: _Problem, law: PowerLaw, size: float, confidence: float) -> Interval:
    """Values that could be added as a further point without making the fit worse than chance would."""
    predicted = float(law(size))
    _, least = problem.best()
    limit = _limit(least, len(problem.sizes) - 3, confidence)

    def excess(value: float) -> float:
        extended = _Problem([*problem.sizes, size], [*problem.values, value])
        return extended.best()[1] - limit

    def bound(factor: float) -> float | None:
        # Up to a hundred times away; beyond, the sizes say nothing.
        inner, step = predicted, factor - 1.0
        for _ in range(40):
            outer = predicted * (1.0 + step)
            if outer <= predicted / 100 or outer >= predicted * 100:
                return None
            if excess(outer) > 0:
                return float(optimize.brentq(excess, inner, outer, xtol=1e-9 * predicted))
            inner, step = outer, step * 1.6
        return None

    if excess(predicted) >= 0:
        return Interval(low=predicted, high=predicted)
    return Interval(low=bound(0.999), high=bound(1.001))
