"""Putting the kept pixels back, and easing the seam on the other side of it."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from fluid_core.errors import InvalidRequestError
from fluid_core.number_types import is_whole_number


def check_blend(blend: int) -> None:
    """Raise `InvalidRequestError` unless `blend` is a whole number of pixels from 0."""
    if not is_whole_number(blend) or blend < 0:
        raise InvalidRequestError(f"Expected blend as a whole number of pixels, 0 or more, found {blend!r}.")


def with_kept_pixels(
    images: Float[Tensor, "pictures 3 height width"],
    kept: Float[Tensor, "pictures 3 height width"],
    drawn: Bool[Tensor, "pictures height width"],
    *,
    blend: int,
) -> Float[Tensor, "pictures 3 height width"]:
    """What was decoded, `images`, where it is `drawn`, and `kept` elsewhere, exactly. All values are in [0, 1].

    A tokenizer does not give back quite what it was given, which may show as a seam. With `blend` the first so many
    drawn pixels along it are shifted by the difference at the nearest kept pixels, less and less with their distance.
    Nothing of what lay under the mask is used.
    """
    anew = drawn[:, None]
    difference = torch.where(anew, torch.zeros_like(images), kept - images)
    reached = (~anew).float()
    shift = torch.zeros_like(images)
    for distance in range(1, blend + 1):
        # Means over the neighbours that are kept or were reached before.
        count = _neighbour_sum(reached)
        spread = _neighbour_sum(difference) / count.clamp(min=1.0)
        newly = (reached == 0) & (count > 0)
        difference = torch.where(newly, spread, difference)
        reached = torch.where(newly, torch.ones_like(reached), reached)
        shift = torch.where(newly, difference * (1.0 - distance / (blend + 1)), shift)
    return torch.where(anew, (images + shift).clamp(0.0, 1.0), kept)


def _neighbour_sum(values: Tensor) -> Tensor:
    """Over the three by three pixels around each; beyond the edge there is nothing."""
    return functional.avg_pool2d(values, kernel_size=3, stride=1, padding=1, divisor_override=1)
