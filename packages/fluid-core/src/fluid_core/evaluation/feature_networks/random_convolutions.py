"""Features of a convolutional network with random weights: needs no files, and knows nothing about pictures."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fluid_core.evaluation.feature_networks.frozen_network import FrozenFeatureNetwork
from fluid_core.evaluation.feature_networks.options import RandomConvolutionsOptions


class RandomConvolutions(FrozenFeatureNetwork):
    """Layers of 3 x 3 convolution, ReLU and halving; a feature vector holds the mean and the standard deviation of
    every channel of every layer over the picture.

    For tests, and to compare pictures where no trained network is at hand: it sees colours, edges and textures, and no
    objects. Distances in it are comparable with each other alone, for the same channels and seed.
    """

    def __init__(self, options: RandomConvolutionsOptions | None = None) -> None:
        super().__init__()
        self.options = options = options or RandomConvolutionsOptions()
        self.width = 2 * sum(options.channels)
        layers = " + ".join(str(count) for count in options.channels)
        self.name = f"random convolutions ({layers} channels, seed {options.seed}, untrained)"
        generator = torch.Generator().manual_seed(options.seed)
        self.layers = nn.ModuleList()
        before = 3
        for count in options.channels:
            # On the meta device, so that nothing is drawn from the global generator.
            layer = nn.Conv2d(before, count, 3, padding=1, padding_mode="reflect", bias=False, device="meta")
            scale = (2.0 / (9 * before)) ** 0.5
            layer.weight = nn.Parameter(torch.randn(layer.weight.shape, generator=generator) * scale)
            self.layers.append(layer)
            before = count
        self.requires_grad_(False)
        self.eval()

    def _features(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        described = [
            part
            for layer in self._maps(images)
            for part in (layer.mean(dim=(2, 3)), layer.flatten(2).std(dim=2, correction=0))
        ]
        return torch.cat(described, dim=1)

    def _maps(self, images: Float[Tensor, "batch 3 height width"]) -> tuple[Float[Tensor, "batch _ _ _"], ...]:
        maps, x = [], images
        for layer in self.layers:
            x = functional.relu(layer(x))
            maps.append(x)
            if min(x.shape[2:]) > 3:
                x = functional.avg_pool2d(x, 2)
        return tuple(maps)


def build_random_convolutions(options: RandomConvolutionsOptions) -> RandomConvolutions:
    """The network that belongs to the options: the same weights every time."""
    return RandomConvolutions(options)
