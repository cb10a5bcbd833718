"""How an autoencoder's latents lie over an image, read from its configuration."""

from typing import Any

from torch import Tensor

from fluid_core.errors import CheckpointMismatchError, ConfigurationError, InvalidRequestError
from fluid_core.token_space import Grid

_STAGES = {
    "AutoencoderKL": "block_out_channels",
    "AutoencoderTiny": "encoder_block_out_channels",
    "AutoencoderDC": "encoder_block_out_channels",
    "VQModel": "block_out_channels",
}
"""The argument with one entry for each stage; between two stages the side is halved."""


def down_factor(autoencoder: Any) -> int:
    """Pixels along one side of a latent of a diffusers autoencoder."""
    return int(2 ** (len(autoencoder.config[_STAGES[type(autoencoder).__name__]]) - 1))


def latent_grid(autoencoder: Any, image_size: int) -> Grid:
    """The latents of a square image. Raises `ConfigurationError` unless they cover the image exactly."""
    factor = down_factor(autoencoder)
    if image_size % factor:
        nearest = max(factor, image_size // factor * factor)
        raise ConfigurationError(
            f"Expected an image_size that is a multiple of {factor}, since each latent of this "
            f"{type(autoencoder).__name__} covers {factor} x {factor} pixels, found {image_size}. Choose for example "
            f"{nearest}."
        )
    return Grid(height=image_size // factor, width=image_size // factor)


def check_latents(latents: Tensor, channels: int, grid: Grid) -> None:
    """Raise `CheckpointMismatchError` unless the encoder gave what the configuration promises, and
    `InvalidRequestError` for values that are not finite.
    """
    if tuple(latents.shape[1:]) != (channels, grid.height, grid.width):
        raise CheckpointMismatchError(
            f"Expected latents of shape {channels} x {grid.height} x {grid.width} from the autoencoder, as its "
            f"configuration says, found {tuple(latents.shape[1:])}. Its config.json belongs to other weights."
        )
    if not bool(latents.isfinite().all()):
        raise InvalidRequestError(
            f"Expected finite latents, found {int((~latents.isfinite()).sum())} values that are NaN or infinite, "
            f"computed in {latents.dtype}. Run the autoencoder in float32 or bfloat16."
        )
