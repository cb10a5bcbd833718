"""From a scene to pixels, with smooth edges, at any resolution from 16 pixels a side."""

import functools

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.data.shapes.scene import Scene
from fluid_core.data.shapes.vocabulary import PALETTE
from fluid_core.errors import DataError

SMALLEST_SIDE = 16
"""Pixels a side below which outlines are no longer told apart."""

_SAMPLES_PER_PIXEL = 8
_ARM_OF_CROSS = 0.36


def draw(scene: Scene, side: int) -> Float[Tensor, "3 height width"]:
    """The picture of `scene`, `side` pixels wide and high, with values in [-1, 1].

    Raises `DataError` below 16 pixels.
    """
    if side < SMALLEST_SIDE:
        raise DataError(f"Shapes are drawn from {SMALLEST_SIDE} pixels a side, found {side}.")
    picture = np.empty((3, side, side), dtype=np.float32)
    picture[:] = _pixel_value(scene.background)
    for drawn in scene.objects:
        left, top = ((center - drawn.size / 2) * side for center in drawn.center)
        size = drawn.size * side
        column, row = int(np.floor(left)), int(np.floor(top))
        # Rounded, so that equal outlines share one entry of the cache in spite of rounding errors.
        mask = coverage(drawn.shape, round(left - column, 6), round(top - row, 6), round(size, 6), round(size, 6))
        height, width = mask.shape
        # An outline may reach past the border: only the part inside is drawn.
        first_row, first_column = max(-row, 0), max(-column, 0)
        window = picture[:, max(row, 0) : row + height, max(column, 0) : column + width]
        visible = mask[first_row : first_row + window.shape[1], first_column : first_column + window.shape[2]]
        window += visible * (_pixel_value(PALETTE[drawn.color]) - window)
    return torch.from_numpy(picture)


@functools.lru_cache(maxsize=4096)
def coverage(shape: str, left: float, top: float, width: float, height: float) -> npt.NDArray[np.float32]:
    """How much of each pixel, from 0 to 1, is inside an outline that fills the given box; lengths in pixels.

    Rows and columns begin at 0 and end where the box does. The array is shared: do not write to it.
    """
    num_columns, num_rows = int(np.ceil(left + width)), int(np.ceil(top + height))
    samples = _SAMPLES_PER_PIXEL
    x = (np.arange(num_columns * samples) + 0.5) / samples
    y = (np.arange(num_rows * samples) + 0.5) / samples
    inside = _inside(shape, (2 * (x - left) / width - 1)[None, :], (2 * (y - top) / height - 1)[:, None])
    blocks = inside.reshape(num_rows, samples, num_columns, samples)
    mask: npt.NDArray[np.float32] = blocks.mean(axis=(1, 3), dtype=np.float32)
    mask.setflags(write=False)
    return mask


def _inside(shape: str, x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which points are inside the outline, in a box from -1 to 1 with y pointing down."""
    in_box = (np.abs(x) <= 1) & (np.abs(y) <= 1)
    if shape == "square":
        return in_box
    if shape == "circle":
        return x**2 + y**2 <= 1
    if shape == "triangle":
        return in_box & (np.abs(x) <= (y + 1) / 2)
    if shape == "cross":
        return in_box & ((np.abs(x) <= _ARM_OF_CROSS) | (np.abs(y) <= _ARM_OF_CROSS))
    raise DataError(f"No outline is known for the shape '{shape}'.")


@functools.cache
def _pixel_value(color: tuple[int, int, int]) -> npt.NDArray[np.float32]:
    """A colour as a column of three values in [-1, 1] that broadcasts over pixels."""
    return (np.array(color, dtype=np.float32) / 127.5 - 1).reshape(3, 1, 1)
