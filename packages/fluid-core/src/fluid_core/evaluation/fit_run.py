"""Power laws of the groups of a table of figures, written as JSON and as a plot."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from fluid_core.atomic_files import write_json
from fluid_core.evaluation.figures_table import Row, chosen_rows, column, grouped, read_rows
from fluid_core.evaluation.plotting import save_figure
from fluid_core.evaluation.scaling_law import (
    Correlation,
    Extrapolation,
    PowerLawFit,
    correlation,
    extrapolate_to_largest,
    fit_power_law,
)
from fluid_core.evaluation.scaling_plot import FittedSeries, plot_series


@attrs.frozen(kw_only=True)
class FitRequest:
    """What is fitted to which rows of a table."""

    figures: Path
    x: str = "parameters"
    y: str = "validation_loss"
    laws: tuple[str, ...] = ("plain",)
    """`plain`, `floor`, or both."""

    by: str | None = None
    where: Mapping[str, Any] = attrs.field(factory=dict)
    hold_out_largest: bool = False
    score: str | None = None
    confidence: float = 0.95


@attrs.frozen(kw_only=True)
class FittedGroup:
    """What came out for the rows of one group."""

    label: str
    """Its value of the column that groups; empty if all rows are one."""

    sizes: tuple[float, ...]
    values: tuple[float, ...]
    fits: dict[str, PowerLawFit]
    """By law; without those that need more sizes than there are."""

    extrapolations: dict[str, Extrapolation]
    scores: Correlation | None = None


def fit_figures(request: FitRequest) -> list[FittedGroup]:
    """Fit every group of rows.

    Raises `DataError` and `InvalidRequestError` for a table that can not be read or lacks a column, for numbers that no
    power law has, and for too few sizes for the first of the laws.
    """
    rows: Sequence[Row] = chosen_rows(read_rows(request.figures), request.where)
    by = request.by or ("variant" if any("variant" in row for row in rows) else None)
    groups = {"": rows} if by is None else grouped(rows, by)
    return [_fitted(label, group, request) for label, group in groups.items()]


def write_fits(groups: Sequence[FittedGroup], request: FitRequest, folder: Path) -> tuple[Path, Path]:
    """Write `fit.json` and `fit.png`. Raises `OutputError`, and `MissingPackageError` without matplotlib."""
    document = {
        "request": {**attrs.asdict(request), "figures": request.figures.name},
        "packages": {name: importlib.metadata.version(name) for name in ("fluid-core", "scipy", "numpy")},
        "groups": [fit_document(group) for group in groups],
    }
    write_json(folder / "fit.json", document)
    law = request.laws[-1]
    series = [
        FittedSeries(
            label=group.label or request.y,
            sizes=group.sizes,
            values=group.values,
            fit=group.fits.get(law),
            held_out=group.extrapolations.get(law),
        )
        for group in groups
    ]
    save_figure(plot_series(series, x_label=request.x, y_label=request.y), folder / "fit.png")
    return folder / "fit.json", folder / "fit.png"


def fit_document(group: FittedGroup) -> dict[str, Any]:
    """A group as plain data."""
    return {
        "group": group.label,
        "fits": {law: power_law_document(fit) for law, fit in group.fits.items()},
        "held_out": {law: extrapolation_document(one) for law, one in group.extrapolations.items()},
        "correlation": None if group.scores is None else attrs.asdict(group.scores),
    }


def power_law_document(fit: PowerLawFit) -> dict[str, Any]:
    """A fit as plain data."""
    return {**attrs.asdict(fit), "coefficient": fit.law.coefficient, "formula": str(fit.law)}


def extrapolation_document(held_out: Extrapolation) -> dict[str, Any]:
    """An extrapolation as plain data."""
    return {
        **attrs.asdict(held_out, filter=lambda field, _: field.name != "fit"),
        "fit": power_law_document(held_out.fit),
        "relative_error": held_out.relative_error,
        "inside": held_out.inside,
    }


def _fitted(label: str, rows: Sequence[Row], request: FitRequest) -> FittedGroup:
    sizes, values = column(rows, request.x), column(rows, request.y)
    fits: dict[str, PowerLawFit] = {}
    extrapolations: dict[str, Extrapolation] = {}
    num_sizes = len(set(sizes))
    for law in request.laws:
        settings: dict[str, Any] = {"with_floor": law == "floor", "confidence": request.confidence}
        needed = 3 if law == "floor" else 2
        if num_sizes >= needed or law == request.laws[0]:
            fits[law] = fit_power_law(sizes, values, **settings)
        if request.hold_out_largest and num_sizes > needed:
            extrapolations[law] = extrapolate_to_largest(sizes, values, **settings)
    return FittedGroup(
        label=label,
        sizes=tuple(sizes),
        values=tuple(values),
        fits=fits,
        extrapolations=extrapolations,
        scores=None
        if request.score is None
        else correlation(values, column(rows, request.score), confidence=request.confidence),
    )
