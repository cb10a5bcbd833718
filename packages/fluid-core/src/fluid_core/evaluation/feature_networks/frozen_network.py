"""What the feature networks of core share: frozen weights, checked pictures, resizing."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fluid_core.errors import InvalidRequestError

_SMALLEST = 32
_ROUNDING = 1e-3


class FrozenFeatureNetwork(nn.Module, ABC):
    """A network that never trains: no gradients towards its weights, always in evaluation mode, in float32."""

    name: str
    width: int

    def train(self, mode: bool = True) -> "FrozenFeatureNetwork":  # noqa: ARG002
        """Stay in evaluation mode: statistics of batch normalisation are part of the network."""
        return super().train(False)

    @torch.no_grad()
    def features(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        """One vector of length `width` for each image in [-1, 1], whatever else is in the batch.

        Raises `InvalidRequestError` for images of less than 32 pixels, or out of range.
        """
        self._check(images)
        with torch.autocast(images.device.type, enabled=False):
            return self._features(images.float())

    def maps(self, images: Float[Tensor, "batch 3 height width"]) -> tuple[Float[Tensor, "batch _ _ _"], ...]:
        """Activations of several layers at the size the images have, from fine to coarse, with gradients towards them.

        Values somewhat out of [-1, 1], as reconstructions have them, are taken as they are. Raises
        `InvalidRequestError` for images of less than 32 pixels, and for a network that has no maps to show.
        """
        self._check_size(images)
        with torch.autocast(images.device.type, enabled=False):
            return self._maps(images.float())

    @abstractmethod
    def _features(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        """Feature vectors of checked float32 images."""

    @abstractmethod
    def _maps(self, images: Float[Tensor, "batch 3 height width"]) -> tuple[Float[Tensor, "batch _ _ _"], ...]:
        """Maps of float32 images."""

    def _check(self, images: Tensor) -> None:
        self._check_size(images)
        if images.numel() and not bool((images.abs() <= 1.0 + _ROUNDING).all()):
            raise InvalidRequestError(
                f"Expected finite images in [-1, 1] for {self.name}, found values from {float(images.min()):.3g} to "
                f"{float(images.max()):.3g}. Scale bytes with x / 127.5 - 1; clamp reconstructions."
            )

    def _check_size(self, images: Tensor) -> None:
        if min(images.shape[2:]) < _SMALLEST:
            raise InvalidRequestError(
                f"Expected images of at least {_SMALLEST} pixels for {self.name}, found {tuple(images.shape[2:])}."
            )


def resized(images: Float[Tensor, "batch 3 height width"], side: int) -> Float[Tensor, "batch 3 side side"]:
    """Images as squares of `side` pixels: bicubic, antialiased where they shrink, and within the range they had."""
    if tuple(images.shape[2:]) == (side, side):
        return images
    squares = functional.interpolate(images, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
    return squares.clamp(-1.0, 1.0)
