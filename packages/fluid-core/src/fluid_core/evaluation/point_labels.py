"""Labels beside the points of a plot, where they cover neither a point nor each other if there is such a place."""

from collections.abc import Sequence
from typing import Any

from fluid_core.evaluation.plotting import FAINT

_POINT_RADIUS = 4.0
"""In typographic points, as the offsets below."""

_PLACES = (
    ((5, 4), "left", "bottom"),
    ((-5, 4), "right", "bottom"),
    ((5, -4), "left", "top"),
    ((-5, -4), "right", "top"),
    ((0, 6), "center", "bottom"),
    ((0, -6), "center", "top"),
)
"""Offset of a label from its point, and where it is held; the usual place first."""


def label_points(axis: Any, points: Sequence[tuple[float, float]], labels: Sequence[str]) -> None:
    """Write each label beside its point. The axis must show everything else already.

    A label that is covered wherever it stands takes the usual place.
    """
    figure = axis.figure
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    radius = _POINT_RADIUS * figure.dpi / 72
    corners = axis.transData.transform(points)
    taken = [_box(x - radius, y - radius, x + radius, y + radius) for x, y in corners]
    taken += [text.get_window_extent(renderer) for text in axis.texts]
    for point, label in zip(points, labels, strict=True):
        text = axis.annotate(label, point, (0, 0), textcoords="offset points", fontsize=7.5, color=FAINT)
        for place in (*_PLACES, _PLACES[0]):
            offset, horizontal, vertical = place
            text.set(position=offset, ha=horizontal, va=vertical)
            box = text.get_window_extent(renderer)
            if not any(box.overlaps(one) for one in taken):
                break
        taken.append(text.get_window_extent(renderer))


def _box(left: float, bottom: float, right: float, top: float) -> Any:
    from matplotlib.transforms import Bbox

    return Bbox.from_extents(left, bottom, right, top)
