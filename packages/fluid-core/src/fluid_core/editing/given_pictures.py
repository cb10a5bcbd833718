"""Pictures and masks as a caller gives them: of PIL, numpy or torch, one or several, of any size."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from fluid_core.data.picture_file import in_rgb
from fluid_core.errors import InvalidRequestError

GivenPicture = Image.Image | np.ndarray | Tensor
"""A PIL image of any mode; an array `height width 3` or `pictures height width 3`; a tensor `3 height width` or
`pictures 3 height width`. Integers are from 0 to 255, other numbers from 0 to 1."""

GivenMask = Image.Image | np.ndarray | Tensor
"""A PIL image; an array or tensor `height width` or `masks height width`, or with a further axis for colours as
pictures have it. True, white or 1 is what is to be drawn anew; greys count as white from the middle on."""


def as_pictures(given: GivenPicture | Sequence[GivenPicture]) -> list[Float[Tensor, "3 _ _"]]:
    """Each picture with values in [0, 1], in its own size; PIL images turned as their EXIF data says, laid on white.

    Raises `InvalidRequestError` for what is no picture, and for values out of range.
    """
    pictures = [picture for one in _listed(given) for picture in _pictures_of(one)]
    if not pictures:
        raise InvalidRequestError("Expected at least one picture, found none.")
    return pictures


def as_masks(given: GivenMask | Sequence[GivenMask]) -> list[Bool[Tensor, "_ _"]]:
    """Each mask, True where a picture is to be drawn anew.

    Raises `InvalidRequestError` for what is no mask, for transparent ones, and for values out of range.
    """
    masks = [mask for one in _listed(given) for mask in _masks_of(one)]
    if not masks:
        raise InvalidRequestError("Expected at least one mask, found none.")
    return masks


def _listed(given: object) -> list[object]:
    return list(given) if isinstance(given, Sequence) and not isinstance(given, str | bytes) else [given]


def _pictures_of(given: object) -> list[Tensor]:
    if isinstance(given, Image.Image):
        try:
            pixels = np.array(in_rgb(ImageOps.exif_transpose(given)))
        except (ValueError, OSError) as error:
            raise InvalidRequestError(f"Could not use the picture: {str(error).rstrip('.')}.") from error
        return [_scaled(torch.from_numpy(pixels), "picture").permute(2, 0, 1)]
    values = _as_tensor(given, "picture")
    axis = -1 if isinstance(given, np.ndarray) else -3
    if values.ndim not in (3, 4) or values.shape[axis] != 3 or 0 in values.shape:
        shape = "height x width x 3" if axis == -1 else "3 x height x width"
        raise InvalidRequestError(
            f"Expected a picture as an {type(given).__name__} of {shape}, or several with one more axis in front, "
            f"found {tuple(values.shape)}. Arrays have their colours last, tensors before height and width."
        )
    values = _scaled(values, "picture")
    values = values if values.ndim == 4 else values[None]
    return list(values.permute(0, 3, 1, 2) if axis == -1 else values)


def _masks_of(given: object) -> list[Tensor]:
    if isinstance(given, Image.Image):
        if given.has_transparency_data and given.convert("RGBA").getchannel("A").getextrema() != (255, 255):
            raise InvalidRequestError(
                "Expected a mask of black and white, found one with transparent pixels, which could mean either. Paint "
                "white what is to be drawn anew and black what is to stay, and save it without transparency."
            )
        given = _numbers(ImageOps.exif_transpose(given))
    values = _as_tensor(given, "mask")
    axis = -1 if isinstance(given, np.ndarray) else -3
    # Three masks in a tensor look like one with colours, which are the same in a mask of black and white.
    batch = isinstance(given, Tensor) and values.ndim == 3 and not bool((values == values[:1]).all())
    if values.ndim in (3, 4) and values.shape[axis] in (1, 3) and not batch:
        values = _scaled(values, "mask").mean(dim=axis)
    if values.ndim not in (2, 3) or 0 in values.shape:
        raise InvalidRequestError(
            f"Expected a mask of height x width, or several with one more axis in front, found a shape of "
            f"{tuple(values.shape)}."
        )
    chosen = _scaled(values, "mask") >= 0.5
    return list(chosen if chosen.ndim == 3 else chosen[None])


def _numbers(mask: Image.Image) -> NDArray[Any]:
    """What an array would say. Whole numbers of 16 and 32 bits are 0 and 1, bytes or 16-bit greys, by their largest."""
    if mask.mode == "F":
        return np.array(mask)
    if mask.mode.startswith("I"):
        numbers = np.array(mask).astype(np.float32)
        return numbers / next((most for most in (1, 255) if numbers.max(initial=0) <= most), 65535)
    return np.array(in_rgb(mask))


def _as_tensor(given: object, what: str) -> Tensor:
    if isinstance(given, np.ndarray) and given.dtype.kind in "buif":
        # A copy: what is given may be read-only, or have its rows upside down.
        wide = given.dtype.kind == "u" and given.dtype.itemsize > 1
        return torch.from_numpy(given.astype("int64" if wide else given.dtype.newbyteorder("="), order="C"))
    if isinstance(given, Tensor) and not given.is_complex():
        # Torch computes little with unsigned numbers of more than a byte.
        wide = given.dtype in (torch.uint16, torch.uint32, torch.uint64)
        return (given.to(torch.int64) if wide else given).detach().cpu()
    found = f"one of type {given.dtype}" if isinstance(given, np.ndarray | Tensor) else f"a {type(given).__name__}"
    raise InvalidRequestError(f"Expected a {what} as a PIL image, an array or a tensor of numbers, found {found}.")


def _scaled(values: Tensor, what: str) -> Float[Tensor, "..."]:
    """Numbers from 0 to 1 of booleans, of integers up to 255, and of numbers that are there already."""
    largest = 1.0
    if not values.is_floating_point() and values.dtype != torch.bool and not (what == "mask" and _only_ones(values)):
        largest = 255.0
    scaled = values.float() / largest
    # Written so that NaN, for which every comparison is false, is refused as well.
    if not bool(((scaled >= -1e-3) & (scaled <= 1 + 1e-3)).all()):
        expected = "integers from 0 to 255" if largest == 255.0 else "numbers from 0 to 1"
        raise InvalidRequestError(
            f"Expected a {what} of {expected}, found values from {float(values.min()):g} to {float(values.max()):g}."
        )
    return scaled.clamp(0.0, 1.0)


def _only_ones(values: Tensor) -> bool:
    """Whether integers are nothing but 0 and 1, as in masks that were made by comparing."""
    return bool((values <= 1).all())
