"""Objects in a picture, read off the maps of the detector."""

import attrs
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fluid_core.data.shapes.scene import Box
from fluid_core.errors import DataError
from fluid_emoji.judge.network import CELLS, SIDE, DetectorMaps, DetectorNetwork
from fluid_emoji.judge.saved_detector import DetectorDescription

LEAST_SCORE = 0.3
"""Below this a peak is no object."""

LEAST_KIND = 0.4
"""Below this probability of its likeliest kind, an object counts as unclear."""

# Objects of a scene do not touch, so of two boxes that overlap by this (intersection over union) one is an echo.
_ECHO = 0.3


@attrs.frozen(kw_only=True)
class FoundEmoji:
    """An object in a picture."""

    name: str
    """The likeliest kind, of `scenes/objects.csv`."""

    probability: float
    """Of that kind."""

    color: str
    """The likeliest colour of the palette; says something only about kinds that are painted in any."""

    score: float
    """How sure the detector is that there is an object, from 0 to 1."""

    box: Box
    """In shares of the picture's width and height."""

    @property
    def is_clear(self) -> bool:
        """Whether the detector can tell what it is."""
        return self.probability >= LEAST_KIND


def find_emoji(
    image: Float[Tensor, "3 height width"], network: DetectorNetwork, description: DetectorDescription
) -> tuple[FoundEmoji, ...]:
    """The objects in `image` (in [-1, 1], of any size), the surest first. Raises `DataError` for NaN or infinity."""
    pixels = image.detach().cpu().float()
    if not bool(pixels.isfinite().all()):
        raise DataError("Expected a picture with values in [-1, 1], found values that are NaN or infinite.")
    pixels = pixels.clamp(-1, 1)[None]
    if pixels.shape[-2:] != (SIDE, SIDE):
        pixels = functional.interpolate(pixels, size=(SIDE, SIDE), mode="bilinear", antialias=True)
    with torch.inference_mode():
        return read_maps(network(pixels), description)


def read_maps(maps: DetectorMaps, description: DetectorDescription) -> tuple[FoundEmoji, ...]:
    """The objects that the maps of a single picture tell of, the surest first."""
    scores = maps.center[0].sigmoid()
    # A peak is at least as high as all around it.
    around = functional.max_pool2d(scores[None], 3, stride=1, padding=1)[0]
    peaks = ((scores == around) & (scores >= LEAST_SCORE)).nonzero().tolist()
    found: list[FoundEmoji] = []
    for row, column in sorted(peaks, key=lambda place: -float(scores[place[0], place[1]])):
        probabilities = maps.kind[0, :, row, column].softmax(dim=0)
        right, down = maps.offset[0, :, row, column].tolist()
        width, height = (maps.size[0, :, row, column].exp() / CELLS).clamp(max=1.0).tolist()
        box = Box(center=((column + 0.5 + right) / CELLS, (row + 0.5 + down) / CELLS), size=(width, height))
        if any(_overlap(box, other.box) > _ECHO for other in found):
            continue
        found.append(
            FoundEmoji(
                name=description.kinds[int(probabilities.argmax())],
                probability=float(probabilities.max()),
                color=description.colors[int(maps.color[0, :, row, column].argmax())],
                score=float(scores[row, column]),
                box=box,
            )
        )
    return tuple(found)


def _overlap(box: Box, other: Box) -> float:
    shared = 1.0
    for axis in (0, 1):
        first = max(one.center[axis] - one.size[axis] / 2 for one in (box, other))
        last = min(one.center[axis] + one.size[axis] / 2 for one in (box, other))
        shared *= max(last - first, 0.0)
    both = sum(one.size[0] * one.size[1] for one in (box, other))
    return shared / max(both - shared, 1e-9)
