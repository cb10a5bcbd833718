"""What a study found, as claims that are decided by its numbers and by the paper's in the same way."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import attrs

from fluid_core.evaluation.scaling_law import (
    Correlation,
    Extrapolation,
    PowerLawFit,
    correlation,
    extrapolate_to_largest,
    fit_power_law,
)
from fluid_core.study.comparisons import Difference, Row, cells, difference, mean_difference, task_difference
from fluid_core.study.paper_results import PAPER_VARIANTS

Agreement = Literal["agrees", "differs", "undecided", "nothing to compare"]

PAIRS = (
    ("continuous-random", "discrete-random"),
    ("continuous-raster", "discrete-raster"),
    ("discrete-random", "discrete-raster"),
    ("continuous-random", "continuous-raster"),
)
"""Comparisons that change one thing: the tokens, or the order."""


@attrs.frozen(kw_only=True)
class VariantFindings:
    """What was found about one variant: fits, and how its loss goes together with its scores."""

    variant: str
    loss_kind: str
    points: tuple[tuple[float, float], ...]
    """Parameters and validation loss of every run."""

    fit: PowerLawFit | None
    fit_with_floor: PowerLawFit | None
    held_out: Extrapolation | None
    correlation: Correlation | None
    """Of validation loss and overall score."""


@attrs.frozen(kw_only=True)
class PairFindings:
    """Two variants compared by their overall score, and beside it the paper's difference of the same two."""

    first: str
    second: str
    by_size: tuple[Difference, ...]
    over_sizes: Difference
    by_task: dict[str, tuple[float, float]]
    """Difference over all sizes, and its standard error."""

    paper: tuple[float, ...] | None
    """The paper's differences in GenEval, size by size."""

    @property
    def paper_mean(self) -> float | None:
        """Over its five sizes."""
        return None if self.paper is None else sum(self.paper) / len(self.paper)

    @property
    def agreement(self) -> Agreement:
        """Whether the mean over sizes has the paper's sign."""
        if self.paper_mean is None:
            return "nothing to compare"
        if self.over_sizes.sign == 0:
            return "undecided"
        return "agrees" if (self.over_sizes.sign > 0) == (self.paper_mean > 0) else "differs"


@attrs.frozen(kw_only=True)
class Findings:
    """Everything that the report says."""

    variants: tuple[VariantFindings, ...]
    pairs: tuple[PairFindings, ...]
    paper: tuple[VariantFindings, ...]
    """The same of the paper's numbers, by the same functions."""


def find(rows: Sequence[Row]) -> Findings:
    """What the rows of a study tell."""
    names = list(dict.fromkeys(row["variant"] for row in rows))
    return Findings(
        variants=tuple(_variant(name, [row for row in rows if row["variant"] == name]) for name in names),
        pairs=tuple(pair for first, second in _pairs(names) if (pair := _pair(rows, first, second)) is not None),
        paper=paper_findings(),
    )


def paper_findings() -> tuple[VariantFindings, ...]:
    """Fits of the paper's validation losses, and their correlation with its GenEval over sizes."""
    return tuple(
        variant_findings(name, one.loss_kind, one.parameters, one.validation_loss, one.geneval)
        for name, one in PAPER_VARIANTS.items()
    )


def variant_findings(
    name: str, kind: str, parameters: Sequence[float | int], losses: Sequence[float], scores: Sequence[float] | None
) -> VariantFindings:
    """Fits and correlation of one variant, as far as its sizes allow."""
    num_sizes = len(set(parameters))
    possible = all(loss > 0 for loss in losses)
    return VariantFindings(
        variant=name,
        loss_kind=kind,
        points=tuple(zip(map(float, parameters), map(float, losses), strict=True)),
        fit=fit_power_law(parameters, losses) if possible and num_sizes > 2 else None,
        fit_with_floor=fit_power_law(parameters, losses, with_floor=True) if possible and num_sizes > 3 else None,
        held_out=extrapolate_to_largest(parameters, losses) if possible and num_sizes > 3 else None,
        correlation=None if scores is None else correlation(losses, scores),
    )


def _variant(name: str, rows: Sequence[Row]) -> VariantFindings:
    scored = all(row["scores"] for row in rows)
    return variant_findings(
        name,
        rows[0]["validation_loss_kind"],
        [row["parameters"] for row in rows],
        [row["validation_loss"] for row in rows],
        [row["scores"]["overall"] for row in rows] if scored else None,
    )


def _pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The paper's comparisons, and each further variant against the paper's best one or the first of all."""
    found = [pair for pair in PAIRS if set(pair) <= set(names)]
    reference = "continuous-random" if "continuous-random" in names else names[0]
    return found + [(name, reference) for name in names if name not in PAPER_VARIANTS and name != reference]


def _pair(rows: Sequence[Row], first: str, second: str) -> PairFindings | None:
    sizes = list(dict.fromkeys(row["size"] for row in rows))
    by_size = [one for size in sizes if (one := difference(rows, first, second, size)) is not None]
    mean = mean_difference(by_size)
    if mean is None:
        return None
    tasks = dict.fromkeys(task for row in rows for task in row["tasks"])
    by_task = {task: told for task in tasks if (told := task_difference(rows, first, second, task)) is not None}
    paper = None
    if first in PAPER_VARIANTS and second in PAPER_VARIANTS:
        scores = zip(PAPER_VARIANTS[first].geneval, PAPER_VARIANTS[second].geneval, strict=True)
        paper = tuple(one - other for one, other in scores)
    return PairFindings(
        first=first, second=second, by_size=tuple(by_size), over_sizes=mean, by_task=by_task, paper=paper
    )


def falls_with_size(points: Sequence[tuple[float, float]]) -> tuple[int, int]:
    """How many of the steps from one size to the next lower the loss (its mean over seeds), and of how many."""
    by_size: dict[float, list[float]] = {}
    for size, loss in points:
        by_size.setdefault(size, []).append(loss)
    means = [sum(by_size[size]) / len(by_size[size]) for size in sorted(by_size)]
    return sum(after < before for before, after in itertools.pairwise(means)), len(means) - 1


def overall_scores(rows: Sequence[Row]) -> Mapping[tuple[str, str], float]:
    """Mean overall score over seeds, by variant and size; without runs that have no scores."""
    scored = {key: [row for row in group if row["scores"]] for key, group in cells(rows).items()}
    return {key: sum(row["scores"]["overall"] for row in group) / len(group) for key, group in scored.items() if group}


def findings_document(findings: Findings) -> dict[str, Any]:
    """The same as plain data."""
    from fluid_core.evaluation.fit_run import extrapolation_document, power_law_document

    def variant(one: VariantFindings) -> dict[str, Any]:
        return {
            "variant": one.variant,
            "loss_kind": one.loss_kind,
            "fit": None if one.fit is None else power_law_document(one.fit),
            "fit_with_floor": None if one.fit_with_floor is None else power_law_document(one.fit_with_floor),
            "held_out": None if one.held_out is None else extrapolation_document(one.held_out),
            "correlation": None if one.correlation is None else attrs.asdict(one.correlation),
        }

    def told(one: Difference) -> dict[str, Any]:
        return {**attrs.asdict(one), "reach": one.reach, "sign": one.sign, "prompts_needed": one.prompts_needed}

    return {
        "variants": [variant(one) for one in findings.variants],
        "pairs": [
            {
                "first": one.first,
                "second": one.second,
                "by_size": [told(size) for size in one.by_size],
                "over_sizes": told(one.over_sizes),
                "by_task": {
                    task: {"value": value, "error": None if error != error else error}
                    for task, (value, error) in one.by_task.items()
                },
                "paper": None if one.paper is None else list(one.paper),
                "agreement": one.agreement,
            }
            for one in findings.pairs
        ],
        "paper": [variant(one) for one in findings.paper],
    }
