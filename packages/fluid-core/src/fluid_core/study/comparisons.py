"""Is one variant better than another, and by how much? Differences with intervals, from the same prompts.

An interval holds two sources of chance: which prompts were asked and what was drawn for them, told from the paired
verdicts, and how training went, told from runs that differ in their seed alone.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import numpy as np
from scipy import stats

Row = Mapping[str, Any]

_CONFIDENCE = 0.95
_MOST_PROMPTS = 1_000_000


@attrs.frozen(kw_only=True)
class Difference:
    """Overall score of one variant less that of another, at one size or over several."""

    first: str
    second: str
    size: str
    """Name of the size, or `all`."""

    value: float
    error: float
    """Standard error of the value."""

    of_prompts: float
    """The part of it that more prompts would shrink."""

    num_prompts: int

    @property
    def reach(self) -> float:
        """Half the width of the 95% interval."""
        return float(stats.norm.ppf(0.5 + _CONFIDENCE / 2)) * self.error

    @property
    def sign(self) -> int:
        """1 or -1 where the interval leaves out zero, else 0: the study does not tell."""
        return 0 if abs(self.value) <= self.reach else (1 if self.value > 0 else -1)

    @property
    def prompts_needed(self) -> int | None:
        """Prompts at which a difference of this value would be told; None where seeds alone already hide it, or it is
        so small that nobody would draw so many.
        """
        quantile = float(stats.norm.ppf(0.5 + _CONFIDENCE / 2))
        of_seeds = self.error**2 - self.of_prompts**2
        room = (self.value / quantile) ** 2 - of_seeds
        if room <= 0 or self.num_prompts * self.of_prompts**2 > _MOST_PROMPTS * room:
            return None
        return math.ceil(self.num_prompts * self.of_prompts**2 / room)


def seed_deviation(rows: Sequence[Row]) -> float | None:
    """Standard deviation of the overall score over seeds of a variant and size, pooled; None without such runs."""
    squares, freedom = 0.0, 0
    for group in cells(rows).values():
        scores = [row["scores"]["overall"] for row in group if row["scores"]]
        if len(scores) > 1:
            squares += float(np.var(scores)) * len(scores)
            freedom += len(scores) - 1
    return math.sqrt(squares / freedom) if freedom else None


def cells(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Rows by variant and size."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["variant"], row["size"]), []).append(row)
    return found


def difference(rows: Sequence[Row], first: str, second: str, size: str) -> Difference | None:
    """The difference at one size; None where one of the two was not measured there, or has no scores."""
    by_cell = cells(rows)
    pair = [[row for row in by_cell.get((variant, size), []) if row["verdicts"]] for variant in (first, second)]
    if not all(pair) or len({tuple(row["tasks"]) for group in pair for row in group}) != 1:
        return None
    tasks = np.asarray(pair[0][0]["tasks"])
    a, b = (np.mean([row["verdicts"] for row in group], axis=0) for group in pair)
    value, variance = 0.0, 0.0
    names = list(dict.fromkeys(tasks.tolist()))
    for task in names:
        paired = (a - b)[tasks == task]
        value += float(paired.mean()) / len(names)
        if len(paired) > 1:
            variance += float(paired.var(ddof=1)) / len(paired) / len(names) ** 2
    of_seeds = (seed_deviation(rows) or 0.0) ** 2 * (1 / len(pair[0]) + 1 / len(pair[1]))
    return Difference(
        first=first,
        second=second,
        size=size,
        value=value,
        error=math.sqrt(variance + of_seeds),
        of_prompts=math.sqrt(variance),
        num_prompts=len(tasks),
    )


def mean_difference(differences: Sequence[Difference]) -> Difference | None:
    """The mean over sizes.

    The prompts are the same at every size, so that their chance is not averaged away: its part of the error is the
    mean of the parts, as if sizes agreed on every prompt. That of seeds is averaged.
    """
    if not differences:
        return None
    number = len(differences)
    of_prompts = sum(one.of_prompts for one in differences) / number
    of_seeds = sum(one.error**2 - one.of_prompts**2 for one in differences) / number**2
    return Difference(
        first=differences[0].first,
        second=differences[0].second,
        size="all",
        value=sum(one.value for one in differences) / number,
        error=math.sqrt(of_prompts**2 + of_seeds),
        of_prompts=of_prompts,
        num_prompts=differences[0].num_prompts,
    )


def task_difference(rows: Sequence[Row], first: str, second: str, task: str) -> tuple[float, float] | None:
    """The difference in one task, over all sizes that both were measured at, and its standard error."""
    by_cell = cells(rows)
    sizes = [size for variant, size in by_cell if variant == first and (second, size) in by_cell]
    paired = []
    for size in sizes:
        pair = [[row for row in by_cell[(variant, size)] if row["verdicts"]] for variant in (first, second)]
        if not all(pair) or len({tuple(row["tasks"]) for group in pair for row in group}) != 1:
            continue
        here = np.asarray(pair[0][0]["tasks"]) == task
        a, b = (np.mean([row["verdicts"] for row in group], axis=0)[here] for group in pair)
        paired.append(a - b)
    if not paired or not len(paired[0]):
        return None
    # A prompt counts once, with its mean over sizes.
    by_prompt = np.mean(paired, axis=0)
    error = float(by_prompt.std(ddof=1)) / math.sqrt(len(by_prompt)) if len(by_prompt) > 1 else math.nan
    return float(by_prompt.mean()), error
