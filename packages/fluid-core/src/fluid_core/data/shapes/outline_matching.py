"""Tells which outline a group of pixels resembles most.

The group is brought to a standard position and size by its moments (mean and spread of its pixels, which a ragged edge
hardly moves, unlike its bounding box) and is then compared with every outline in the same standard form.
"""

import functools
import itertools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from fluid_core.data.shapes.drawing import coverage
from fluid_core.data.shapes.vocabulary import SHAPES

# The standard form: a square grid about the mean that reaches this many spreads to every side.
_NUM_CELLS = 24
_REACH = 3.0
# Outlines are also compared a little smaller, larger and shifted (in spreads): moments are not exact.
_SCALES = (0.92, 1.0, 1.08)
_SHIFTS = (-0.12, 0.0, 0.12)
# Resolution at which the moments of the ideal outlines are measured.
_MEASURED_SIDE = 256


class OutlineFit(NamedTuple):
    """The outline most like a group of pixels, and the box it fills; x before y, in pixels."""

    shape: str
    overlap: float
    center: tuple[float, float]
    size: tuple[float, float]


class _Moments(NamedTuple):
    """Mean and spread (standard deviation) of the pixels of a mask along x and y, in pixels."""

    mean: tuple[float, float]
    spread: tuple[float, float]


class _Outlines(NamedTuple):
    """Every outline in standard form: one row for each shape, scale and shift, with its box in spreads."""

    rows: npt.NDArray[np.float32]
    areas: npt.NDArray[np.float32]
    shapes: list[str]
    centers: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.float64]


def closest_outline(mask: npt.NDArray[np.bool_]) -> OutlineFit:
    """The shape whose outline overlaps most with `mask`, which needs at least one pixel set.

    `overlap` is the area in common divided by the area of both together: 1 for equal outlines.
    """
    moments = _moments(mask)
    cells = (np.arange(_NUM_CELLS) + 0.5) / _NUM_CELLS * 2 * _REACH - _REACH
    x, y = (mean + cells * spread for mean, spread in zip(moments.mean, moments.spread, strict=True))
    # Pixel i covers i to i + 1, so its value stands at i + 0.5.
    places = np.stack(np.broadcast_arrays(y[:, None] - 0.5, x[None, :] - 0.5))
    standard = ndimage.map_coordinates(mask.astype(np.float32), places, order=1, mode="constant").ravel()
    outlines = _outlines()
    common = outlines.rows @ standard
    overlaps = common / (outlines.areas + standard.sum() - common)
    best = int(overlaps.argmax())
    center, size = outlines.centers[best], outlines.sizes[best]
    return OutlineFit(
        shape=outlines.shapes[best],
        overlap=float(overlaps[best]),
        center=(
            moments.mean[0] + float(center[0]) * moments.spread[0],
            moments.mean[1] + float(center[1]) * moments.spread[1],
        ),
        size=(float(size[0]) * moments.spread[0], float(size[1]) * moments.spread[1]),
    )


def _moments(mask: npt.NDArray[np.bool_] | npt.NDArray[np.float32]) -> _Moments:
    total = float(mask.sum())
    means, spreads = [], []
    for axis in (0, 1):
        weights = mask.sum(axis=axis) / total
        places = np.arange(len(weights)) + 0.5
        mean = float(weights @ places)
        means.append(mean)
        # A pixel is not a point: it has a spread of its own, which also keeps a single one from having none.
        spreads.append(float(np.sqrt(weights @ (places - mean) ** 2 + 1 / 12)))
    return _Moments((means[0], means[1]), (spreads[0], spreads[1]))


@functools.cache
def _outlines() -> _Outlines:
    cells_per_spread = _NUM_CELLS / (2 * _REACH)
    rows, shapes, centers, sizes = [], [], [], []
    for shape in SHAPES:
        moments = _moments(coverage(shape, 0.0, 0.0, float(_MEASURED_SIDE), float(_MEASURED_SIDE)))
        for scale_x, scale_y, shift_x, shift_y in itertools.product(_SCALES, _SCALES, _SHIFTS, _SHIFTS):
            size = np.array([scale_x, scale_y]) * _MEASURED_SIDE / np.array(moments.spread)
            off_center = (_MEASURED_SIDE / 2 - np.array(moments.mean)) / np.array(moments.spread)
            center = np.array([shift_x, shift_y]) + off_center * np.array([scale_x, scale_y])
            left, top = (center - size / 2 + _REACH) * cells_per_spread
            width, height = size * cells_per_spread
            drawn = coverage(shape, float(left), float(top), float(width), float(height))
            row = np.zeros((_NUM_CELLS, _NUM_CELLS), dtype=np.float32)
            visible = drawn[:_NUM_CELLS, :_NUM_CELLS]
            row[: visible.shape[0], : visible.shape[1]] = visible
            rows.append(row.ravel())
            shapes.append(shape)
            centers.append(center)
            sizes.append(size)
    stacked = np.stack(rows)
    return _Outlines(stacked, stacked.sum(axis=1), shapes, np.stack(centers), np.stack(sizes))
