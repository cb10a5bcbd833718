"""The picture to begin with: what of it stays, and what is drawn anew."""

from collections.abc import Sequence

import attrs
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fluid_core.editing.given_pictures import GivenMask, GivenPicture, as_masks, as_pictures
from fluid_core.editing.picture_fitting import Fit, fitted
from fluid_core.editing.token_areas import tokens_touched
from fluid_core.errors import InvalidRequestError
from fluid_core.number_types import is_real_number
from fluid_core.token_space import Grid

ImageBox = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels of the result; right and bottom are the first that no longer belong to it."""


@attrs.frozen(kw_only=True, eq=False)
class Canvases:
    """Pictures of the model's size, with values in [0, 1], and where they are drawn anew.

    There they hold the mean colour of the rest, so that nothing computed from them knows what was there.
    """

    pictures: Float[Tensor, "pictures 3 height width"]
    drawn: Bool[Tensor, "pictures height width"]

    def known_tokens(self, grid: Grid) -> Bool[Tensor, "pictures length"]:
        """True at the tokens whose area is kept to the last pixel.

        Raises `InvalidRequestError` for a picture in which nothing is to be drawn, and for one that keeps pixels but
        no whole token, since what is drawn could not go with them.
        """
        known = ~tokens_touched(self.drawn, grid)
        for index in range(len(known)):
            which = "" if len(known) == 1 else f" of picture {index + 1} of {len(known)}"
            if bool(known[index].all()):
                raise InvalidRequestError(
                    f"The mask{which} leaves nothing to draw: expected white where the picture is to be drawn anew, "
                    "found black everywhere, in the model's size."
                )
            if not bool(known[index].any()) and not bool(self.drawn[index].all()):
                height, width = self.drawn.shape[1] // grid.height, self.drawn.shape[2] // grid.width
                raise InvalidRequestError(
                    f"What is kept{which} is not the whole of any token, so that what is drawn could not know of it: "
                    f"expected at least one of the {grid.height} x {grid.width} areas of {height} x {width} pixels "
                    "(height x width) to be kept entirely. Keep a larger part, or draw all of it anew."
                )
        return known


def inpainting_canvases(
    image: GivenPicture | list[GivenPicture],
    mask: GivenMask | list[GivenMask],
    *,
    image_size: tuple[int, int],
    fit: Fit,
) -> Canvases:
    """Pictures to be drawn anew where a mask is white; one mask may serve several pictures, or one picture several.

    `image_size` is the model's (height, width). Raises `InvalidRequestError` as `as_pictures`, `as_masks` and `fitted`
    do, and for numbers of both that do not go together.
    """
    pictures, masks = as_pictures(image), as_masks(mask)
    count = max(len(pictures), len(masks))
    if len(pictures) not in (1, count) or len(masks) not in (1, count):
        raise InvalidRequestError(
            f"Expected one mask for all pictures, or one for each of them, found {len(masks)} masks for "
            f"{len(pictures)} pictures."
        )
    pairs = zip(pictures * (count // len(pictures)), masks * (count // len(masks)), strict=True)
    return _joined([fitted(picture, drawn, image_size, fit) for picture, drawn in pairs])


def outpainting_canvases(
    image: GivenPicture | list[GivenPicture],
    box: Sequence[int | float],
    *,
    image_size: tuple[int, int],
    fit: Fit,
) -> Canvases:
    """Pictures that fill `box`, with everything around them to be drawn.

    Raises `InvalidRequestError` for a box that is empty or leaves the picture, and as `as_pictures` and `fitted` do.
    """
    height, width = image_size
    left, top, right, bottom = _checked_box(box, width=width, height=height)
    canvases = []
    for picture in as_pictures(image):
        placed, _ = fitted(picture, None, (bottom - top, right - left), fit)
        canvas = placed.mean(dim=(1, 2))[:, None, None].repeat(1, height, width)
        canvas[:, top:bottom, left:right] = placed
        drawn = torch.ones(height, width, dtype=torch.bool)
        drawn[top:bottom, left:right] = False
        canvases.append((canvas, drawn))
    return _joined(canvases)


def whole_canvases(
    image: GivenPicture | list[GivenPicture], *, image_size: tuple[int, int], fit: Fit
) -> Float[Tensor, "pictures 3 height width"]:
    """Pictures of the model's size, with nothing hidden. Raises `InvalidRequestError` as `as_pictures` and `fitted`."""
    return torch.stack([fitted(picture, None, image_size, fit)[0] for picture in as_pictures(image)])


def _checked_box(box: Sequence[int | float], *, width: int, height: int) -> ImageBox:
    sides = tuple(box) if isinstance(box, Sequence) else (box,)
    whole = len(sides) == 4 and all(is_real_number(side) and float(side).is_integer() for side in sides)
    inside = whole and 0 <= sides[0] < sides[2] <= width and 0 <= sides[1] < sides[3] <= height
    if not inside:
        raise InvalidRequestError(
            f"Expected a box (left, top, right, bottom) of whole pixels within the {width} x {height} (width x height) "
            f"of the result, with left < right and top < bottom, found {sides}."
        )
    if sides == (0, 0, width, height):
        raise InvalidRequestError(
            f"The box {sides} is the whole picture, which leaves nothing to draw: expected a smaller one."
        )
    left, top, right, bottom = (int(side) for side in sides)
    return (left, top, right, bottom)


def _joined(canvases: list[tuple[Tensor, Tensor]]) -> Canvases:
    pictures, drawn = zip(*canvases, strict=True)
    return Canvases(pictures=torch.stack(pictures), drawn=torch.stack(drawn))
