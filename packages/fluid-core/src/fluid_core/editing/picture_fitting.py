"""Bringing a picture and its mask to another size, so that nothing under the mask shows in what is left."""

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from fluid_core.errors import InvalidRequestError

Fit = Literal["exact", "crop", "stretch"]
"""What happens to a picture of other proportions: it is refused, its middle is cut out, or it is stretched."""

_NEUTRAL = 0.5
"""Grey that stands where there is nothing to see."""

_ROUNDING = 1e-4
"""How far a sum of weights of kept pixels alone may be from 1."""


def check_fit(fit: str) -> None:
    """Raise `InvalidRequestError` unless `fit` is `exact`, `crop` or `stretch`."""
    if fit not in get_args(Fit):
        raise InvalidRequestError(f"Expected fit 'exact', 'crop' or 'stretch', found {fit!r}.")


def fitted(
    picture: Float[Tensor, "3 _ _"], drawn: Bool[Tensor, "_ _"] | None, size: tuple[int, int], fit: Fit
) -> tuple[Float[Tensor, "3 height width"], Bool[Tensor, "height width"]]:
    """A picture in [0, 1] and its mask with `size` (height, width) pixels; without a mask all of it is kept.

    The resizing is that of the data sets: Lanczos on bytes, of other proportions the largest middle part, or
    stretched. Near a mask it goes over the kept pixels alone, each weighed by whether it is kept. A pixel of the result
    is drawn anew where less than half of what it is made of is kept; there the picture holds the mean colour of all
    that is kept. What is kept of a picture that has the size is left as it is, to the bit.

    Raises `InvalidRequestError` for a mask of another size than the picture, and for other proportions with `exact`.
    """
    height, width = picture.shape[1:]
    if drawn is None:
        drawn = torch.zeros(height, width, dtype=torch.bool)
    if drawn.shape != picture.shape[1:]:
        raise InvalidRequestError(
            f"Expected a mask of the picture's size, {width} x {height} pixels (width x height), found "
            f"{drawn.shape[1]} x {drawn.shape[0]}."
        )
    picture = _filled(picture, drawn)
    if (height, width) == size:
        return picture, drawn
    box = _box((height, width), size, fit)
    resized = _resized_bytes(picture, size, box)
    if bool(drawn.any()):
        kept = (~drawn).float()
        weights = _resized(kept, size, box)
        colours = torch.stack([_resized(channel, size, box) for channel in picture * kept])
        mixed = (weights - 1.0).abs() > _ROUNDING
        resized = torch.where(mixed, (colours / weights.clamp(min=0.5)).clamp(0.0, 1.0), resized)
        drawn = weights < 0.5
    else:
        drawn = torch.zeros(size, dtype=torch.bool)
    return _filled(resized, drawn), drawn


def _filled(picture: Tensor, drawn: Tensor) -> Tensor:
    """The picture with the mean colour of what is kept in place of what is not."""
    kept = picture[:, ~drawn]
    colour = kept.mean(dim=1) if kept.shape[1] else picture.new_full((3,), _NEUTRAL)
    return torch.where(drawn, colour[:, None, None], picture)


def _box(found: tuple[int, int], wanted: tuple[int, int], fit: Fit) -> tuple[float, float, float, float]:
    """The part of a picture that is resized: left, top, right, bottom."""
    (height, width), (wanted_height, wanted_width) = found, wanted
    if fit == "stretch":
        return (0.0, 0.0, float(width), float(height))
    scale = min(width / wanted_width, height / wanted_height)
    left, top = (width - scale * wanted_width) / 2, (height - scale * wanted_height) / 2
    # Proportions that differ by no more than whole pixels can say are the same.
    if fit == "exact" and 2 * max(left, top) > max(1.0, scale / 2):
        raise InvalidRequestError(
            f"Expected a picture of the proportions of {wanted_width} x {wanted_height} pixels (width x height), found "
            f"one of {width} x {height}. Cut it yourself, or say fit='crop' to use the largest part in the middle, or "
            "fit='stretch' to distort it."
        )
    left, top = max(left, 0.0), max(top, 0.0)
    return (left, top, min(width - left, float(width)), min(height - top, float(height)))


def _resized_bytes(picture: Tensor, size: tuple[int, int], box: tuple[float, float, float, float]) -> Tensor:
    pixels = (picture.permute(1, 2, 0) * 255.0).round().to(torch.uint8).numpy()
    resized = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255.0


def _resized(values: Tensor, size: tuple[int, int], box: tuple[float, float, float, float]) -> Tensor:
    plane = Image.fromarray(np.ascontiguousarray(values.numpy(), dtype=np.float32))
    resized = plane.resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box)
    return torch.from_numpy(np.array(resized))
