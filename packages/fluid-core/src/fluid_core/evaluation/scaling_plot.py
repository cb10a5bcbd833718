"""Power laws as pictures: points, the line fitted to them, and what it foresaw of the size it had not seen."""

from collections.abc import Sequence
from typing import Any

import attrs
import numpy as np

from fluid_core.evaluation.plotting import COLORS, FAINT, label_sizes, pyplot
from fluid_core.evaluation.scaling_law import Extrapolation, PowerLawFit

HELD_OUT_LEGEND = (
    "Lines are fitted to the dots; the largest size (diamond) was held out, and the bar is where the fit expected it. "
    "b: exponent and its 95% interval."
)

_FAR_APART = 3.0


@attrs.frozen(kw_only=True)
class FittedSeries:
    """One line of a plot."""

    label: str
    sizes: Sequence[float]
    """Of every measurement; sizes may repeat."""

    values: Sequence[float]
    fit: PowerLawFit | None = None
    held_out: Extrapolation | None = None
    """With it the line drawn is the one that has not seen the largest size."""

    color: str | None = None
    dashed: bool = False


def draw_series(axis: Any, series: Sequence[FittedSeries], *, x_label: str, y_label: str) -> None:
    """Draw lines into an axis of matplotlib, both of its scales logarithmic."""
    for number, one in enumerate(series):
        color = one.color or COLORS[number % len(COLORS)]
        law = one.held_out.fit if one.held_out is not None else one.fit
        label = one.label
        if law is not None:
            seen, beyond = max(law.sizes), max(one.sizes)
            inner = np.geomspace(min(law.sizes) / 1.15, seen, 80)
            style = "--" if one.dashed else "-"
            axis.plot(inner, law.law(inner), style, color=color, lw=1.5, zorder=2)
            if beyond > seen:
                outer = np.geomspace(seen, beyond * 1.08, 40)
                axis.plot(outer, law.law(outer), ":", color=color, lw=1.5, zorder=2)
            label = f"{one.label}   {exponent_text(law)}"
        if one.held_out is not None and one.held_out.interval is not None:
            _draw_interval(axis, one.held_out, color)
        filled = "white" if one.dashed else color
        held = one.held_out.size if one.held_out is not None else None
        known = [(x, y) for x, y in zip(one.sizes, one.values, strict=True) if x != held]
        marks = {"ls": "none", "color": color, "markeredgewidth": 1.3, "zorder": 3}
        axis.plot(*zip(*known, strict=True), "o", label=label, markerfacecolor=filled, markersize=4.6, **marks)
        if one.held_out is not None:
            axis.plot([held], [one.held_out.found], "D", markerfacecolor=filled, markersize=5.6, **marks)
    axis.set_yscale("log")
    axis.set(xlabel=x_label, ylabel=y_label)
    label_sizes(axis, [size for one in series for size in one.sizes])
    _plain_ticks(axis, [value for one in series for value in one.values])
    axis.legend(loc="upper right", handletextpad=0.3)
    low, high = axis.get_ylim()
    # Room for the legend above the points.
    axis.set_ylim(low, high * (high / low) ** (0.11 * len(series) + 0.05))


def exponent_text(fit: PowerLawFit) -> str:
    """The exponent and its interval in few letters: `b = 0.11 (0.09, 0.13)`."""
    text = f"b = {fit.law.exponent:.3f}"
    if fit.exponent_interval is None:
        return text
    low, high = fit.exponent_interval.low, fit.exponent_interval.high
    bounds = ["…" if bound is None else f"{bound:.3f}" for bound in (low, high)]
    return f"{text} ({bounds[0]}, {bounds[1]})"


def plot_series(series: Sequence[FittedSeries], *, x_label: str, y_label: str) -> Any:
    """A figure of its own with `draw_series` in it: lines whose values are far apart, as those of different units are,
    in panels of their own. Raises `MissingPackageError` without matplotlib.
    """
    panels = _panels(series)
    figure, axes = pyplot().subplots(
        1, len(panels), figsize=(0.9 + 5.2 * len(panels), 4.4), squeeze=False, layout="constrained"
    )
    colored = [
        one if one.color else attrs.evolve(one, color=COLORS[number % len(COLORS)]) for number, one in enumerate(series)
    ]
    for axis, panel in zip(axes[0], panels, strict=True):
        draw_series(axis, [colored[index] for index in panel], x_label=x_label, y_label=y_label)
    if any(one.held_out is not None for one in series):
        figure.supxlabel(HELD_OUT_LEGEND, fontsize=8, color=FAINT)
    return figure


def _panels(series: Sequence[FittedSeries]) -> list[list[int]]:
    """Places of the lines, in groups whose values are no more than a few times each other."""
    middles = [float(np.exp(np.log(np.asarray(one.values)).mean())) for one in series]
    groups: list[list[int]] = []
    for index in sorted(range(len(series)), key=lambda place: -middles[place]):
        if groups and middles[groups[-1][-1]] < _FAR_APART * middles[index]:
            groups[-1].append(index)
        else:
            groups.append([index])
    return [sorted(group) for group in groups]


def _draw_interval(axis: Any, held_out: Extrapolation, color: str) -> None:
    interval = held_out.interval
    assert interval is not None
    low = interval.low if interval.low is not None else held_out.predicted / 2
    high = interval.high if interval.high is not None else held_out.predicted * 2
    axis.plot([held_out.size] * 2, [low, high], "-", color=color, lw=4.5, alpha=0.22, solid_capstyle="butt", zorder=1)


def _plain_ticks(axis: Any, values: Sequence[float]) -> None:
    """Numbers as people write them, at about five places of a logarithmic axis."""
    low, high = min(values), max(values)
    digits = max(0, 1 - int(np.floor(np.log10(max(high - low, 1e-9)))))
    ticks = sorted({round(float(tick), digits) for tick in np.geomspace(low, high, 5)})
    axis.set_yticks(ticks, [f"{tick:.{digits}f}" for tick in ticks])
    axis.set_yticks([], minor=True)
