"""Matplotlib where it is installed, with the looks that all plots of Fluid share."""

import importlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fluid_core.atomic_files import write_bytes
from fluid_core.errors import MissingPackageError

INK, FAINT, GRID = "#28282c", "#787880", "#e3e3df"
COLORS = ("#1f5fa8", "#d2601a", "#3c8d5a", "#8a4fa3", "#b3435a", "#6b7280", "#b08d1c", "#2a9aa5")
"""One for each line of a plot; they begin anew after the last."""

_STYLE = {
    "figure.dpi": 150,
    "figure.facecolor": "#fbfbf9",
    "axes.facecolor": "#fbfbf9",
    "axes.edgecolor": "#9a9aa0",
    "axes.labelcolor": INK,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.7,
    "lines.markersize": 5.0,
    "font.size": 9.0,
}


def pyplot() -> Any:
    """`matplotlib.pyplot`, drawing into files alone.

    Raises `MissingPackageError`, naming the extra that brings it, where matplotlib is not installed.
    """
    try:
        matplotlib = importlib.import_module("matplotlib")
    except ModuleNotFoundError as error:
        raise MissingPackageError(
            "Plots need the package matplotlib, which is not installed. Run: pip install 'fluid-core[plots]'"
        ) from error
    matplotlib.use("agg")
    plots = importlib.import_module("matplotlib.pyplot")
    plots.rcParams.update(_STYLE)
    return plots


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, whole or not at all, and forget it. Raises `OutputError` if it can not be written."""
    content = io.BytesIO()
    # Without a name of the program and its version, equal figures give equal files.
    figure.savefig(content, format="png", metadata={"Software": None})
    pyplot().close(figure)
    write_bytes(path, content.getvalue())


def counted(value: float | int) -> str:
    """A number of parameters or images in few letters: `830K`, `1.2M`, `3.1B`."""
    for limit, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if value >= 0.9995 * limit:
            scaled = value / limit
            return f"{scaled:.0f}{letter}" if scaled >= 99.5 else f"{scaled:.3g}{letter}"
    return f"{value:.3g}"


def label_sizes(axis: Any, sizes: Sequence[float | int]) -> None:
    """A logarithmic axis of sizes with a tick at each of those that stand apart, written in few letters."""
    axis.set_xscale("log")
    ticks: list[float | int] = []
    for size in sorted(sizes):
        if not ticks or size > 1.35 * ticks[-1]:
            ticks.append(size)
    axis.set_xticks(ticks, [counted(size) for size in ticks])
    axis.set_xticks([], minor=True)
