"""How different two pictures look to a fixed network: a term for training autoencoders."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from fluid_core.protocols import FeatureNetwork


def perceptual_distance(
    network: FeatureNetwork,
    reconstruction: Float[Tensor, "batch 3 height width"],
    images: Float[Tensor, "batch 3 height width"],
) -> Float[Tensor, ""]:
    """Mean over layers, positions and images of the squared distance between channel vectors of length 1.

    From 0 (alike) to 4 (opposite). It follows LPIPS (arXiv 1801.03924) without the learned weights of channels, so that
    any network will do. Gradients reach `reconstruction` alone.
    """
    with torch.no_grad():
        wanted = network.maps(images)
    found = network.maps(reconstruction)
    layers = [_layer_distance(one, other) for one, other in zip(found, wanted, strict=True)]
    return torch.stack(layers).mean()


def _layer_distance(
    one: Float[Tensor, "batch channels height width"], other: Float[Tensor, "batch channels height width"]
) -> Float[Tensor, ""]:
    difference = normalize(one.float(), dim=1) - normalize(other.float(), dim=1)
    return difference.square().sum(dim=1).mean()
