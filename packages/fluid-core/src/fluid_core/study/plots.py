"""The plots of a study."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from fluid_core.evaluation.plotting import COLORS, FAINT, INK, label_sizes, pyplot
from fluid_core.evaluation.point_labels import label_points
from fluid_core.evaluation.scaling_plot import HELD_OUT_LEGEND, FittedSeries, draw_series
from fluid_core.study.comparisons import cells
from fluid_core.study.findings import Findings, VariantFindings
from fluid_core.study.paper_results import PAPER_VARIANTS
from fluid_core.study.rows import CROSS_ENTROPY

Row = Mapping[str, Any]

_KNOWN = {
    "discrete-raster": ("#7fa6d6", True),
    "discrete-random": ("#1f5fa8", False),
    "continuous-raster": ("#eda36f", True),
    "continuous-random": ("#d2601a", False),
}
"""Blue is discrete and orange continuous; raster is lighter, with hollow points and dashed lines."""


def _look(variant: str, variants: Sequence[str]) -> tuple[str, bool]:
    if variant in _KNOWN:
        return _KNOWN[variant]
    others = [name for name in variants if name not in _KNOWN]
    return COLORS[2:][others.index(variant) % len(COLORS[2:])], False


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row["variant"] for row in rows))


def _mark(color: str, hollow: bool) -> dict[str, Any]:
    face = "white" if hollow else color
    return {"color": color, "marker": "o", "markerfacecolor": face, "markeredgewidth": 1.3, "markersize": 4.8}


def loss_figure(findings: Findings) -> Any | None:
    """Validation loss against parameters with the fitted laws: one row for each kind of loss, the paper's beside it.

    None with less than two sizes of every variant.
    """
    names = [one.variant for one in findings.variants]
    shown = [one for one in findings.variants if len({size for size, _ in one.points}) > 1]
    if not shown:
        return None
    kinds = sorted({one.loss_kind for one in shown}, key=lambda kind: (kind != CROSS_ENTROPY, kind))
    papers = [_paper_beside(kind, shown, findings.paper) for kind in kinds]
    columns = 2 if any(papers) else 1
    figure, axes = pyplot().subplots(
        len(kinds), columns, figsize=(5.4 * columns, 4.1 * len(kinds)), squeeze=False, layout="constrained"
    )
    for row, (kind, paper) in enumerate(zip(kinds, papers, strict=True)):
        ours = [one for one in shown if one.loss_kind == kind]
        draw_series(axes[row][0], [_series(one, names) for one in ours], x_label="parameters", y_label=kind)
        axes[row][0].set_title("this study")
        if not paper:
            if columns == 2:
                axes[row][1].set_axis_off()
            continue
        draw_series(
            axes[row][1], [_series(one, names) for one in paper], x_label="parameters", y_label=paper[0].loss_kind
        )
        axes[row][1].set_title("the paper (figure 5)")
    if any(one.held_out is not None for one in shown):
        figure.supxlabel(HELD_OUT_LEGEND, fontsize=8, color=FAINT)
    return figure


def _series(one: VariantFindings, names: Sequence[str]) -> FittedSeries:
    color, hollow = _look(one.variant, names)
    return FittedSeries(
        label=one.variant,
        sizes=[size for size, _ in one.points],
        values=[loss for _, loss in one.points],
        fit=one.fit,
        held_out=one.held_out,
        color=color,
        dashed=hollow,
    )


def _paper_beside(
    kind: str, shown: Sequence[VariantFindings], paper: Sequence[VariantFindings]
) -> list[VariantFindings]:
    """The paper's lines of the variants whose loss is of this kind."""
    names = {one.variant for one in shown if one.loss_kind == kind}
    return [one for one in paper if one.variant in names]


def scores_figure(rows: Sequence[Row]) -> Any | None:
    """Overall score and each task against size, the paper's GenEval beside them. None without scores."""
    rows = [row for row in rows if row["scores"]]
    if not rows:
        return None
    plt = pyplot()
    tasks = [task for task in rows[0]["scores"] if task != "overall"]
    names = _names(rows)
    has_paper = any(name in PAPER_VARIANTS for name in names)
    columns = max(2, math.ceil(len(tasks) / 2))
    figure = plt.figure(figsize=(11.0, 8.2), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.0, 1.05))
    large = top.subplots(1, 2 if has_paper else 1, squeeze=False)[0]
    for name in names:
        _score_line(large[0], rows, name, "overall", names, label=name)
    large[0].set_title("overall score of this study's judge")
    large[0].set_ylabel("share of pictures that show what was asked")
    _chance_line(large[0], rows, "overall")
    large[0].set_ylim(0, 1.03)
    top.legend(loc="outside upper center", ncols=4)
    if has_paper:
        for name in names:
            if name in PAPER_VARIANTS:
                color, hollow = _look(name, names)
                paper = PAPER_VARIANTS[name]
                style = "--" if hollow else "-"
                large[1].plot(paper.parameters, paper.geneval, style, **_mark(color, hollow))
        label_sizes(large[1], [size for one in PAPER_VARIANTS.values() for size in one.parameters])
        large[1].set(xlabel="parameters", ylabel="GenEval, overall")
        large[1].set_title("the paper (figure 6)")
    small = bottom.subplots(2, columns, squeeze=False, sharex=True, sharey=True).flatten()
    for axis, task in zip(small, tasks, strict=False):
        for name in names:
            _score_line(axis, rows, name, task, names)
        _chance_line(axis, rows, task)
        axis.set_title(task)
        axis.set_ylim(-0.03, 1.05)
    for axis in small[len(tasks) :]:
        axis.set_axis_off()
    for axis in small[: len(tasks)][: max(0, len(tasks) - columns)]:
        axis.set_xlabel("")
    return figure


def _score_line(axis: Any, rows: Sequence[Row], name: str, task: str, names: Sequence[str], **others: Any) -> None:
    """The mean over seeds at each size, with a bar for what the choice of prompts leaves open."""
    color, hollow = _look(name, names)
    groups = [group for (variant, _), group in cells(rows).items() if variant == name]
    sizes = [sum(row["parameters"] for row in group) / len(group) for group in groups]
    means = [sum(row["scores"][task] for row in group) / len(group) for group in groups]
    errors = [1.96 * _prompt_error(group, task) for group in groups]
    axis.errorbar(
        sizes,
        means,
        yerr=errors,
        ls="--" if hollow else "-",
        elinewidth=0.9,
        capsize=0,
        **_mark(color, hollow),
        **others,
    )
    label_sizes(axis, [row["parameters"] for row in rows])
    axis.set_xlabel("parameters")


def _prompt_error(group: Sequence[Row], task: str) -> float:
    """Standard error of a score over prompts; the seeds of a group saw the same ones."""
    tasks = list(dict.fromkeys(group[0]["tasks"])) if task == "overall" else [task]
    variance = 0.0
    for one in tasks:
        means = [
            sum(row["verdicts"][i] for row in group) / len(group)
            for i, found in enumerate(group[0]["tasks"])
            if found == one
        ]
        if len(means) > 1:
            mean = sum(means) / len(means)
            variance += sum((value - mean) ** 2 for value in means) / (len(means) - 1) / len(means) / len(tasks) ** 2
    return math.sqrt(variance)


def _chance_line(axis: Any, rows: Sequence[Row], task: str) -> None:
    chance = next((row["chance"][task] for row in rows if task in row["chance"]), None)
    if chance is None:
        return
    axis.axhline(chance, color=FAINT, lw=0.9, ls=(0, (2, 2)), zorder=1)
    if task == "overall":
        axis.annotate(
            "random pictures of the data set",
            (0.99, chance),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=7.5,
            color=FAINT,
        )


def steps_figure(rows: Sequence[Row]) -> Any | None:
    """Overall score against steps of the order, and of iterative heads, at the largest size. None without any."""
    measured = [row for row in rows if row["by_order_steps"] or row["by_head_steps"]]
    if not measured:
        return None
    largest = max(measured, key=lambda row: row["parameters"])["size"]
    of_size = [row for row in rows if row["size"] == largest and row["scores"]]
    kinds = [
        (key, title)
        for key, title in (("by_order_steps", "steps of the order"), ("by_head_steps", "steps of the head for a token"))
        if any(row[key] for row in of_size)
    ]
    names = _names(rows)
    figure, axes = pyplot().subplots(
        1, len(kinds), figsize=(5.5 * len(kinds), 4.1), squeeze=False, sharey=True, layout="constrained"
    )
    for axis, (key, title) in zip(axes[0], kinds, strict=True):
        ticks: set[int] = set()
        for name in _names(of_size):
            color, hollow = _look(name, names)
            points = _step_points([row for row in of_size if row["variant"] == name], key)
            if not points:
                continue
            ticks |= set(points)
            steps = sorted(points)
            style = "--" if hollow else "-"
            axis.plot(steps, [points[one] for one in steps], style, label=name, **_mark(color, hollow))
        axis.set_xscale("log", base=2)
        axis.set_xticks(sorted(ticks), [str(one) for one in sorted(ticks)])
        axis.set_xticks([], minor=True)
        axis.set_xlabel(title)
        axis.set_title(f"size {largest}")
    axes[0][0].set_ylabel("overall score")
    axes[0][0].set_ylim(0, None)
    axes[0][0].legend(loc="best")
    return figure


def _step_points(rows: Sequence[Row], key: str) -> dict[int, float]:
    """Mean score over seeds by number of steps; the order's own number is known without a sweep."""
    found: dict[int, list[float]] = {}
    for row in rows:
        for steps, scores in row[key].items():
            found.setdefault(int(steps), []).append(scores["overall"])
        if key == "by_order_steps":
            found.setdefault(row["order_steps"], []).append(row["scores"]["overall"])
    return {steps: sum(scores) / len(scores) for steps, scores in found.items()}


def correlation_figure(rows: Sequence[Row], findings: Findings) -> Any | None:
    """Overall score against validation loss, a panel for each variant that has three runs or more. None without any."""
    shown = [one for one in findings.variants if one.correlation is not None]
    if not shown:
        return None
    names = [one.variant for one in findings.variants]
    columns = min(4, len(shown))
    lines = math.ceil(len(shown) / columns)
    figure, axes = pyplot().subplots(
        lines, columns, figsize=(2.9 * columns + 0.4, 3.2 * lines), squeeze=False, sharey=True, layout="constrained"
    )
    for axis, one in zip(axes.flatten(), shown, strict=False):
        color, hollow = _look(one.variant, names)
        here = [row for row in rows if row["variant"] == one.variant]
        for row in here:
            axis.plot([row["validation_loss"]], [row["scores"]["overall"]], ls="none", **_mark(color, hollow))
        assert one.correlation is not None
        axis.set_title(one.variant)
        axis.set_xlabel(one.loss_kind)
        axis.margins(0.16)
        axis.locator_params(axis="x", nbins=4)
        axis.text(
            0.97,
            0.96,
            f"r = {one.correlation.pearson:+.2f}\nρ = {one.correlation.spearman:+.2f}",
            transform=axis.transAxes,
            ha="right",
            va="top",
            fontsize=9,
            color=INK,
        )
    for axis in axes.flatten()[len(shown) :]:
        axis.set_axis_off()
    for line in axes:
        line[0].set_ylabel("overall score")
    for axis, one in zip(axes.flatten(), shown, strict=False):
        here = [row for row in rows if row["variant"] == one.variant]
        points = [(row["validation_loss"], row["scores"]["overall"]) for row in here]
        label_points(axis, points, [row["size"] for row in here])
    return figure
