"""A scene of emoji: what stands where, exactly, and its pixels.

Lengths are shares of the picture's side; x runs from the left edge (0) to the right (1), y from the top (0) to the
bottom (1). Every edge of a box is a multiple of 1/32, so that at 32, 64, 96, ... pixels a side a drawing covers its box
to the pixel; at other sizes its edges are rounded to the nearest pixel.
"""

import attrs
import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.data.shapes.scene import Box
from fluid_emoji.backgrounds import plain
from fluid_emoji.sprites import SpriteStore

STEPS_PER_SIDE = 32
"""Edges of boxes are multiples of one over this."""


@attrs.frozen(kw_only=True)
class SceneEmoji:
    """One object of a scene."""

    name: str
    """Its class, in the singular."""

    code_point: str
    color: str | None
    """The colour it was given, of `fluid_emoji.recoloring.PALETTE`, or the one its drawings plainly have; None if they
    have several."""

    recolored: bool
    """Whether the colour was given."""

    left: int
    """In steps of 1/32 of the side, as the other three."""

    top: int
    width: int
    height: int

    @property
    def box(self) -> Box:
        """The smallest box around what can be seen of it, in shares of the side."""
        return Box(
            center=((self.left + self.width / 2) / STEPS_PER_SIDE, (self.top + self.height / 2) / STEPS_PER_SIDE),
            size=(self.width / STEPS_PER_SIDE, self.height / STEPS_PER_SIDE),
        )

    def pixel_box(self, side: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in a picture of `side` pixels; right and bottom are the first outside."""
        edges = (self.left, self.top, self.left + self.width, self.top + self.height)
        left, top, right, bottom = (round(edge * side / STEPS_PER_SIDE) for edge in edges)
        return left, top, right, bottom


@attrs.frozen(kw_only=True)
class EmojiScene:
    """Objects that do not overlap, all drawn in one style, before a plain background."""

    objects: tuple[SceneEmoji, ...]
    style: str
    background: tuple[int, int, int]
    """Red, green and blue from 0 to 255."""


def draw(scene: EmojiScene, sprites: SpriteStore, side: int) -> Float[Tensor, "3 side side"]:
    """The picture of `scene` with values in [-1, 1]. Raises `UnreadableImageError` for a damaged drawing."""
    picture = plain(scene.background, side, side)
    for drawn in scene.objects:
        left, top, right, bottom = drawn.pixel_box(side)
        color = drawn.color if drawn.recolored else None
        sprites.sprite(drawn.code_point, scene.style, (right - left, bottom - top), color).lay_over(picture, left, top)
    return torch.from_numpy(picture).clamp_(-1, 1)
