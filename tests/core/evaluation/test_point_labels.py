"""Labels of points in a plot can be read."""

from itertools import combinations

from fluid_core.evaluation.plotting import pyplot
from fluid_core.evaluation.point_labels import label_points


def _labelled(points, names):
    figure, axis = pyplot().subplots(figsize=(3, 3), layout="constrained")
    axis.plot(*zip(*points, strict=True), ls="none", marker="o", markersize=5)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    label_points(axis, points, names)
    renderer = figure.canvas.get_renderer()
    return [text.get_text() for text in axis.texts], [text.get_window_extent(renderer) for text in axis.texts]


def test_labels_of_close_points_do_not_overlap():
    """Three points that share a place within the length of a label: every label is there, none covers another."""
    names, boxes = _labelled([(0.5, 0.5), (0.55, 0.5), (0.52, 0.55)], ["large", "medium", "small"])
    assert names == ["large", "medium", "small"]
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_many_points_in_one_place_are_all_labelled():
    """Where there is no room at all, labels stand in the usual place, each of them."""
    names, _ = _labelled([(0.5, 0.5)] * 9, [str(number) for number in range(9)])
    assert len(names) == 9
