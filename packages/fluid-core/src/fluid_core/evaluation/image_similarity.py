"""How close a picture is to another, pixel by pixel (PSNR) and in local structure (SSIM)."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import conv2d

from fluid_core.errors import InvalidRequestError

_WINDOW, _SIGMA = 11, 1.5
_K1, _K2 = 0.01, 0.03
_RANGE = 2.0
"""Largest less smallest value of a picture."""


def psnr(
    images: Float[Tensor, "batch 3 height width"], others: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch"]:
    """Peak signal-to-noise ratio of each pair of pictures in [-1, 1], in decibels; infinite for equal ones.

    10 log10(range^2 / mean squared error), over all pixels and colours of a picture. Means over many pictures are means
    of these values.
    """
    error = (images.double() - others.double()).square().mean(dim=(1, 2, 3))
    return 10.0 * torch.log10(_RANGE**2 / error).to(images.dtype)


def ssim(
    images: Float[Tensor, "batch 3 height width"], others: Float[Tensor, "batch 3 height width"]
) -> Float[Tensor, "batch"]:
    """Structural similarity of each pair of pictures in [-1, 1]: 1 for equal ones, near 0 for unrelated ones.

    As Wang et al. (2004) define it: means, variances and covariance under a Gaussian window of 11 x 11 with a standard
    deviation of 1.5, K1 = 0.01, K2 = 0.03, averaged over all places where the window fits and over the three colours.
    Programs that pad pictures at their borders find slightly other values.
    Raises `InvalidRequestError` for pictures smaller than the window.
    """
    height, width = images.shape[2:]
    if min(height, width) < _WINDOW:
        raise InvalidRequestError(f"Expected pictures of at least {_WINDOW} pixels for SSIM, found {height} x {width}.")
    # The term for luminance is made for intensities from 0: means of opposite signs would cancel.
    x, y = (((one.double() + 1.0) / 2.0).flatten(0, 1)[:, None] for one in (images, others))
    mean_x, mean_y = _blurred(x), _blurred(y)
    variance_x = (_blurred(x * x) - mean_x.square()).clamp(min=0)
    variance_y = (_blurred(y * y) - mean_y.square()).clamp(min=0)
    covariance = _blurred(x * y) - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    structure = (2 * covariance + c2) / (variance_x + variance_y + c2)
    return (luminance * structure).mean(dim=(1, 2, 3)).view(len(images), 3).mean(dim=1).to(images.dtype)


def _blurred(planes: Float[Tensor, "planes 1 height width"]) -> Float[Tensor, "planes 1 _ _"]:
    """Means under the window, where it fits; it is a product of two, so two passes of one dimension do."""
    offsets = torch.arange(_WINDOW, dtype=planes.dtype, device=planes.device) - _WINDOW // 2
    weights = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    weights = weights / weights.sum()
    return conv2d(conv2d(planes, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
