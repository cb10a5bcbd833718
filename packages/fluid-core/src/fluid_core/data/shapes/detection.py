"""Finds the objects in a picture of shapes: drawn exactly, or painted by a model with ragged edges and some noise.

Three steps: which palette colour each pixel has, which pixels of one colour belong together, and which outline a
group of pixels resembles most. There is nothing to learn here, so the same picture always gives the same objects.
"""

import functools

import attrs
import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from fluid_core.data.shapes.outline_matching import closest_outline
from fluid_core.data.shapes.scene import Box
from fluid_core.data.shapes.vocabulary import BACKGROUND, COLORS, PALETTE
from fluid_core.errors import DataError

# Smaller groups of pixels, as shares of the picture, are specks. The smallest triangle of a scene has 0.04.
_SMALLEST_AREA = 0.012
# Below this overlap (intersection over union) with the best outline, the shape counts as unclear.
_LEAST_OVERLAP = 0.65
# A box longer than this in one direction holds no shape of the vocabulary.
_LARGEST_ASPECT = 1.7
# Pictures are reduced to at most this many pixels a side: details beyond it say nothing about the objects.
_LARGEST_SIDE = 48
# Smaller pictures are enlarged, so that the grey of edges tells where between two pixels an outline runs.
_SMALLEST_SIDE = 32

Mask = npt.NDArray[np.bool_]


@attrs.frozen(kw_only=True)
class FoundObject:
    """An object in a picture; lengths are shares of the picture's width and height."""

    shape: str | None
    """None if the outline resembles no known shape."""

    color: str
    box: Box
    area: float
    """Share of the picture it covers."""

    overlap: float
    """Likeness to the ideal outline of `shape` (or the best, if unclear): intersection over union, from 0 to 1."""


def find_objects(image: Float[Tensor, "3 height width"]) -> tuple[FoundObject, ...]:
    """Every object in `image` (values in [-1, 1]), from top to bottom. Raises `DataError` for NaN or infinity."""
    pixels = image.detach().cpu().float().numpy()
    if not np.isfinite(pixels).all():
        raise DataError("Expected a picture with values in [-1, 1], found values that are NaN or infinite.")
    labels = _color_labels(_rescaled(np.clip(pixels, -1, 1)))
    height, width = labels.shape
    found = []
    for color, mask in _groups(labels, _SMALLEST_AREA * labels.size):
        fit = closest_outline(mask)
        box = Box(
            center=(float(fit.center[0]) / width, float(fit.center[1]) / height),
            size=(float(fit.size[0]) / width, float(fit.size[1]) / height),
        )
        is_clear = fit.overlap >= _LEAST_OVERLAP and max(fit.size) <= _LARGEST_ASPECT * min(fit.size)
        found.append(
            FoundObject(
                shape=fit.shape if is_clear else None,
                color=color,
                box=box,
                area=float(mask.mean()),
                overlap=fit.overlap,
            )
        )
    return tuple(sorted(found, key=lambda one: (one.box.center[1], one.box.center[0])))


def _rescaled(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The picture at a side of about 32 to 48 pixels: blocks of pixels averaged, or small pictures interpolated."""
    _, height, width = pixels.shape
    side = min(height, width)
    if side < _SMALLEST_SIDE:
        enlarged: npt.NDArray[np.float32] = ndimage.zoom(pixels, (1, 3, 3), order=1, mode="nearest", grid_mode=True)
        return enlarged
    factor = -(-side // _LARGEST_SIDE)
    rows, columns = height // factor, width // factor
    cut = pixels[:, : rows * factor, : columns * factor]
    reduced: npt.NDArray[np.float32] = cut.reshape(3, rows, factor, columns, factor).mean(axis=(2, 4))
    return reduced


@functools.cache
def _palette() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The background, and the way from it to each palette colour, in pixel values."""
    background = np.array(BACKGROUND, dtype=np.float32) / 127.5 - 1
    colors = np.array([PALETTE[name] for name in COLORS], dtype=np.float32) / 127.5 - 1
    return background, colors - background


def _color_labels(pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """For each pixel the index of its palette colour, or -1 for the background.

    A pixel on an outline is a mixture of background and colour. So each is compared with the whole way from the
    background to a colour (grey is then a thin black, not a purple), and belongs to an object from half way on.
    """
    background, ways = _palette()
    from_background = np.moveaxis(pixels, 0, -1) - background
    length = (ways**2).sum(axis=1)
    amount = np.clip(from_background @ ways.T / length, 0, 1)
    # |v - a w|^2 without the three-dimensional difference for each colour.
    squared = (from_background**2).sum(axis=-1, keepdims=True)
    distance = squared - 2 * amount * (from_background @ ways.T) + amount**2 * length
    # Votes of the 3 x 3 neighbourhood: noise on single pixels must not cut an object to pieces.
    weights = np.exp(-distance / 0.08) * (amount >= 0.5)
    best = distance.argmin(axis=-1)
    is_object = np.take_along_axis(amount, best[..., None], axis=-1)[..., 0] >= 0.5
    votes = ndimage.uniform_filter(weights, size=(3, 3, 1), mode="constant") + 0.5 * weights
    labels: npt.NDArray[np.intp] = np.where(
        is_object, np.where(votes.max(axis=-1) > 0, votes.argmax(axis=-1), best), -1
    )
    return labels


def _groups(labels: npt.NDArray[np.intp], least_pixels: float) -> list[tuple[str, Mask]]:
    """Connected pixels of one colour, without specks; specks that touch a group of another colour join it."""
    numbered = np.zeros(labels.shape, dtype=np.int32)
    colors: list[str] = []
    for index in np.unique(labels[labels >= 0]):
        components, num_components = ndimage.label(labels == index)
        areas = np.bincount(components.ravel())
        for component in range(1, num_components + 1):
            if areas[component] >= least_pixels:
                colors.append(COLORS[index])
                numbered[components == component] = len(colors)
    stray = (labels >= 0) & (numbered == 0)
    if colors and stray.any():
        distance, nearest = ndimage.distance_transform_edt(numbered == 0, return_indices=True)
        joins = stray & (distance < 1.5)
        numbered[joins] = numbered[nearest[0][joins], nearest[1][joins]]
    return [(color, numbered == number) for number, color in enumerate(colors, start=1)]
