"""How sure a figure from a few pictures is. Pictures are independent of each other; their tokens are not.

So every figure is first one number for each picture, and its standard error comes from how those differ.
"""

import math
from collections.abc import Mapping
from typing import Any

import attrs
import torch
from jaxtyping import Float
from torch import Tensor

NUM_ERRORS = 3.0
"""Standard errors that a difference must exceed to count as one.

A diagnosis asks some twenty questions at once, at several guidance scales. Two errors would raise a false alarm in
every other healthy run; three do in about one of forty, and every finding must be large enough to matter besides.
"""

NUM_RESAMPLES = 200
"""Bootstrap samples for figures that are no plain mean: enough for a standard error to within a tenth."""


@attrs.frozen(kw_only=True)
class Estimate:
    """A figure and its standard error."""

    value: float
    error: float

    def above(self, limit: float) -> bool:
        """Whether the figure is larger than `limit`, and that is no chance."""
        return self.value > limit and self.value - NUM_ERRORS * self.error > 0

    @property
    def upper(self) -> float:
        """What the figure may well be at most."""
        return self.value + NUM_ERRORS * self.error

    def as_json(self) -> dict[str, float | None]:
        """The same as plain data; an error that nobody knows is null."""
        return {"value": self.value, "standard_error": self.error if math.isfinite(self.error) else None}


def as_plain(value: Any) -> Any:
    """Figures as plain data, whatever lists and tables the estimates stand in."""
    if isinstance(value, Estimate):
        return value.as_json()
    if isinstance(value, Mapping):
        return {key: as_plain(one) for key, one in value.items()}
    return [as_plain(one) for one in value] if isinstance(value, list | tuple) else value


def mean_of(values: Float[Tensor, "pictures"]) -> Estimate:
    """The mean over pictures; of a single picture, or none, nobody knows how sure it is, so the error is infinite."""
    count = len(values)
    value = float(values.double().mean()) if count else 0.0
    if count < 2:
        return Estimate(value=value, error=math.inf)
    return Estimate(value=value, error=float(values.double().std()) / math.sqrt(count))


def difference_of(first: Float[Tensor, "some"], second: Float[Tensor, "others"]) -> Estimate:
    """The mean of the first minus that of the second, of pictures that have nothing to do with each other.

    Where they share captions they have, and the error is a little too large, which is the safe side.
    """
    one, other = mean_of(first), mean_of(second)
    return Estimate(value=one.value - other.value, error=math.hypot(one.error, other.error))


def bootstrap_weights(num_pictures: int, seed: int = 0) -> Float[Tensor, "resamples pictures"]:
    """How often each picture is in each of `NUM_RESAMPLES` samples with replacement, over their number."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randint(num_pictures, (NUM_RESAMPLES, num_pictures), generator=generator)
    counts = torch.zeros(NUM_RESAMPLES, num_pictures, dtype=torch.float64)
    counts.scatter_add_(1, drawn, torch.ones(drawn.shape, dtype=torch.float64))
    return counts / num_pictures


def chance_of_more(first: int, num_first: int, second: int, num_second: int) -> float:
    """How likely at least `first` of `num_first` pictures are affected if they are no worse than the `second` others.

    Fisher's exact test, one-sided: right for the smallest counts, where standard errors are not.
    """
    total, affected = num_first + num_second, first + second
    most = min(affected, num_first)
    logs = [
        _log_choose(num_first, count) + _log_choose(num_second, affected - count) - _log_choose(total, affected)
        for count in range(first, most + 1)
        if affected - count <= num_second
    ]
    return min(1.0, sum(math.exp(one) for one in logs))


def _log_choose(count: int, chosen: int) -> float:
    return math.lgamma(count + 1) - math.lgamma(chosen + 1) - math.lgamma(count - chosen + 1)
