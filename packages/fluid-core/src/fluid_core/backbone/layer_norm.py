"""The normalisation of all blocks of the model, of image and text alike."""

from torch import nn

NORM_EPS = 1e-6


def layer_norm(width: int) -> nn.LayerNorm:
    """Layer normalisation over vectors of `width`, with weight and bias."""
    return nn.LayerNorm(width, eps=NORM_EPS)
