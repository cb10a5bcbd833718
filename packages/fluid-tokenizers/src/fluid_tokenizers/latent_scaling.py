"""The constants by which an autoencoder's own configuration brings its latents to about unit variance."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.errors import CheckpointMismatchError
from fluid_tokenizers.single_precision_buffers import SinglePrecisionBuffers


class LatentScaling(SinglePrecisionBuffers):
    """(latents - centre) * factor for each latent channel, and its inverse.

    As in diffusers' pipelines: the factor is `scaling_factor`, divided by `latents_std` where a configuration has
    both; the centre is `latents_mean`, else `shift_factor`, else zero. Missing constants change nothing. Raises
    `CheckpointMismatchError` for constants that are not one number for each of `channels`.
    """

    centre: Tensor
    factor: Tensor

    def __init__(self, config: Mapping[str, Any], channels: int) -> None:
        super().__init__()
        scale = config.get("scaling_factor")
        self.scale = 1.0 if scale is None else float(scale)
        mean, std = config.get("latents_mean"), config.get("latents_std")
        per_channel = mean is not None and std is not None
        self.single_factor: float | None = None if per_channel else self.scale
        """The factor of all channels; None if each has its own."""

        if per_channel:
            assert mean is not None
            assert std is not None
            centre = _per_channel(mean, channels, "latents_mean")
            factor = self.scale / _per_channel(std, channels, "latents_std")
        else:
            centre = torch.full((channels,), float(config.get("shift_factor") or 0.0))
            factor = torch.full((channels,), self.scale)
        # They follow from the configuration and are saved with it.
        self.register_buffer("centre", centre[:, None, None], persistent=False)
        self.register_buffer("factor", factor[:, None, None], persistent=False)

    def scaled(
        self, latents: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Latents of about unit variance, in single precision."""
        return (latents.float() - self.centre) * self.factor

    def unscaled(
        self, latents: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The inverse: latents as the decoder takes them."""
        return latents.float() / self.factor + self.centre


def _per_channel(values: Sequence[float], channels: int, name: str) -> Float[Tensor, "channels"]:
    found = torch.tensor(values, dtype=torch.float32)
    if tuple(found.shape) != (channels,):
        raise CheckpointMismatchError(
            f"Expected {name} in the autoencoder's config.json to hold one number for each of its {channels} latent "
            f"channels, found shape {tuple(found.shape)}. Correct it, or take the configuration from the same source "
            "as the weights."
        )
    return found
