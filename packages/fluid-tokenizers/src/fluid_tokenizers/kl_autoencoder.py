"""Variational and deterministic autoencoders from diffusers: latents as continuous tokens (paper, section 3).

images -> moments of the posterior -> a draw -> the autoencoder's own scaling -> groups of latents -> statistics
measured on data. `decode` undoes each step.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluid_core.channel_moments import ChannelMoments
from fluid_core.errors import CheckpointMismatchError, ConfigurationError, InvalidRequestError
from fluid_core.exchange import BatchShare, MeasuredChannels, ReconstructionLoss
from fluid_core.identity import RememberedIdentity
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import ContinuousTokens, Grid, TokenSpace
from fluid_tokenizers.autoencoder_grid import check_latents, down_factor, latent_grid
from fluid_tokenizers.autoencoder_identity import autoencoder_identity
from fluid_tokenizers.autoencoder_loading import load_autoencoder, local_folder
from fluid_tokenizers.autoencoder_precision import own_precision
from fluid_tokenizers.autoencoder_training import kl_reconstruction_loss
from fluid_tokenizers.image_checks import check_images
from fluid_tokenizers.latent_scaling import LatentScaling
from fluid_tokenizers.latent_statistics import LatentStatistics
from fluid_tokenizers.options import KLAutoencoderOptions
from fluid_tokenizers.patching import from_patches, to_patches
from fluid_tokenizers.presets import check_preset
from fluid_tokenizers.statistics_file import (
    FILE_NAME,
    StatisticsRecord,
    check_statistics,
    read_statistics,
    write_statistics,
)

CLASSES = ("AutoencoderKL", "AutoencoderTiny", "AutoencoderDC")
"""Classes of diffusers that this tokenizer takes; the last two have deterministic latents."""

_FIT_BATCH = 16
"""Images encoded at once while statistics are measured."""

_LARGEST_LOG_VARIANCE = 20.0
_SMALLEST_LOG_VARIANCE = -30.0
"""Bounds that diffusers keeps, so that exp does not overflow."""


class KLAutoencoder(nn.Module):
    """Each token is a square of latents of a diffusers autoencoder, normalised per channel.

    Raises what `load_autoencoder` does; `ConfigurationError` for an image size that tokens do not cover;
    `CheckpointMismatchError` for a preset with other constants than the autoencoder's, and for statistics of other
    tokens.
    """

    def __init__(self, options: KLAutoencoderOptions) -> None:
        super().__init__()
        self.options = options
        self.autoencoder: Any = load_autoencoder(options, CLASSES)
        if options.preset is not None:
            factor = down_factor(self.autoencoder)
            check_preset(options.preset, self.autoencoder.config, type(self.autoencoder).__name__, factor)
        self._latent_channels = int(self.autoencoder.config["latent_channels"])
        self._latent_grid = latent_grid(self.autoencoder, options.image_size)
        side = self._token_side()
        self.image_size: tuple[int, int] = (options.image_size, options.image_size)
        self.token_space: TokenSpace = ContinuousTokens(
            grid=Grid(height=side, width=side), channels=self._latent_channels * options.grouping**2
        )
        self._variational = type(self.autoencoder).__name__ == "AutoencoderKL"
        self.scaling = LatentScaling(self.autoencoder.config, self._latent_channels)
        self.statistics = LatentStatistics(self.token_space.channels)
        self._identity = RememberedIdentity()
        self._record: StatisticsRecord | None = None
        self._load_statistics()

    @torch.no_grad()
    def precompute(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """`mean` and `log_variance` of the posterior, or `latent` where there is none: `batch channels rows columns`.

        They are the encoder's own, in float32, before any scaling, so that a cache outlives a change of constants,
        grouping or statistics. Raises `InvalidRequestError` for images of a wrong size, or outside [-1, 1].
        """
        check_images(images, self.image_size)
        with own_precision(self.autoencoder) as dtype:
            encoded = self.autoencoder.encode(images.to(dtype))
        if not self._variational:
            # AutoencoderTiny and AutoencoderDC name their result differently.
            latent = (encoded["latents"] if "latents" in encoded else encoded["latent"]).float()
            check_latents(latent, self._latent_channels, self._latent_grid)
            return {"latent": latent}
        posterior = encoded.latent_dist
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        check_latents(mean, self._latent_channels, self._latent_grid)
        return {
            "mean": mean.contiguous(),
            "log_variance": log_variance.clamp(_SMALLEST_LOG_VARIANCE, _LARGEST_LOG_VARIANCE),
        }

    def tokens(
        self, precomputed: Mapping[str, Tensor], *, random: KeyedRandom
    ) -> Float[Tensor, "batch length channels"]:
        """Normalised groups of latents in raster order, drawn from the posterior unless `sample_posterior` is off.

        Raises `InvalidRequestError` for what another tokenizer precomputed.
        """
        return self.statistics.normalize(self.unnormalized_tokens(precomputed, random=random))

    def unnormalized_tokens(
        self, precomputed: Mapping[str, Tensor], *, random: KeyedRandom
    ) -> Float[Tensor, "batch length channels"]:
        """Tokens before the measured statistics: latents with the autoencoder's own scaling, grouped."""
        return to_patches(self.scaling.scaled(self._latents(precomputed, random)), self.options.grouping)

    def _latents(self, precomputed: Mapping[str, Tensor], random: KeyedRandom) -> Tensor:
        needed = ("mean", "log_variance") if self._variational else ("latent",)
        if missing := [name for name in needed if name not in precomputed]:
            raise InvalidRequestError(
                f"Expected {' and '.join(needed)} of {type(self.autoencoder).__name__}, found "
                f"{', '.join(sorted(precomputed)) or 'nothing'} without {missing[0]}. They were precomputed by another "
                "tokenizer."
            )
        mean = precomputed[needed[0]].float()
        if not self._variational or not self.options.sample_posterior:
            return mean
        deviation = torch.exp(0.5 * precomputed["log_variance"].float())
        return mean + deviation * random.normal(tuple(mean.shape[1:])).to(mean.device)

    def decode(self, tokens: Float[Tensor, "batch length channels"]) -> Float[Tensor, "batch 3 height width"]:
        """Images in [-1, 1]; what the decoder makes outside is clamped."""
        grouped = self.statistics.denormalize(tokens)
        latents = self.scaling.unscaled(from_patches(grouped, self.token_space.grid, self.options.grouping))
        with own_precision(self.autoencoder) as dtype:
            images: Tensor = self.autoencoder.decode(latents.to(dtype)).sample
        return images.float().clamp(-1, 1)

    def reconstruction_loss(
        self,
        images: Float[Tensor, "batch 3 height width"],
        *,
        generator: torch.Generator,
        share: BatchShare | None = None,
    ) -> ReconstructionLoss:
        """The loss that the option `training` describes. Raises `InvalidRequestError` for a wrong size or range."""
        check_images(images, self.image_size)
        return kl_reconstruction_loss(self.autoencoder, images, self.options.training, generator=generator, share=share)

    def after_step(self, *, generator: torch.Generator) -> dict[str, float]:  # noqa: ARG002
        """Nothing is kept up between steps of training."""
        return {}

    @property
    def fitted(self) -> bool:
        """True once statistics were measured or loaded, and always where the option `latents` is `scaled`."""
        return self.options.latents == "scaled" or self.statistics.measured

    def fit(self, images: Float[Tensor, "batch 3 height width"], *, seed: int) -> None:
        """Measure mean and standard deviation of each token channel over `images` (in [-1, 1]).

        `seed` is that of the draws from the posterior. Does nothing where the option `latents` is `scaled`. Raises
        `InvalidRequestError` for images of a wrong size or range.
        """
        if self.options.latents == "scaled":
            return
        moments = ChannelMoments(self.statistics.num_channels)
        random = KeyedRandom.from_generator(torch.Generator().manual_seed(seed), len(images), images.device)
        for first in range(0, len(images), _FIT_BATCH):
            batch = images[first : first + _FIT_BATCH]
            rows = torch.arange(first, first + len(batch), device=images.device)
            with torch.no_grad():
                tokens = self.unnormalized_tokens(self.precompute(batch), random=random.rows(rows))
            moments.add(tokens.flatten(0, 1))
        self.adopt_statistics(
            MeasuredChannels(
                mean=moments.mean,
                std=moments.variance.sqrt(),
                num_vectors=moments.count,
                num_images=len(images),
                source=f"{len(images)} images of the training data",
            )
        )

    @property
    def statistics_file(self) -> Path | None:
        """The option `statistics`, or `latent_statistics.json` beside the weights of a local folder."""
        if self.options.statistics is not None:
            return Path(self.options.statistics).expanduser()
        folder = local_folder(self.options)
        return None if folder is None else folder / FILE_NAME

    @property
    def own_scale(self) -> float | None:
        """`scaling_factor` of the autoencoder's configuration; None if each channel has a factor of its own."""
        return self.scaling.single_factor

    def adopt_statistics(self, measured: MeasuredChannels) -> None:
        """Use these statistics from now on. Raises `CheckpointMismatchError` for another number of channels."""
        if len(measured.mean) != self.statistics.num_channels:
            raise CheckpointMismatchError(
                f"Expected statistics of {self.statistics.num_channels} token channels, found {len(measured.mean)}."
            )
        self.statistics.adopt(measured.mean, measured.std)
        self._record = self._new_record(measured)

    def save_statistics(self, file: Path) -> None:
        """Write the statistics in use. Raises `InvalidRequestError` if there are none, `OutputError` if it can not."""
        if not self.statistics.measured:
            raise InvalidRequestError("Expected measured statistics to save, found none. Call fit(images, seed=...).")
        record = self._record
        # Statistics that came with the weights of a model have no record of where they were measured.
        if record is None or record.mean != tuple(self.statistics.mean.tolist()):
            record = self._new_record(None)
        # A cast rounds weights, and what is saved beside them must know them.
        write_statistics(file, attrs.evolve(record, tokenizer_identity=self.identity()))

    def identity(self) -> str:
        """Hash of the autoencoder's configuration and weights, computed once and again when they change."""
        return autoencoder_identity(self.autoencoder, self._identity)

    @property
    def folder_option(self) -> str:
        """`path`."""
        return "path"

    @property
    def superseded_options(self) -> tuple[str, ...]:
        """Where within a pipeline or hub repository the weights were, and the statistics."""
        return ("subfolder", "revision", "statistics")

    @property
    def stored_modules(self) -> tuple[str, ...]:
        """`autoencoder`, unless it was made from an architecture."""
        return () if self.options.location is None else ("autoencoder",)

    def save_pretrained(self, folder: Path) -> None:
        """Write the autoencoder to `folder` as diffusers does, and measured statistics beside it."""
        self.autoencoder.save_pretrained(folder, safe_serialization=True)
        if self.statistics.measured:
            self.save_statistics(folder / FILE_NAME)

    def _new_record(self, measured: MeasuredChannels | None) -> StatisticsRecord:
        """The statistics in use, with what they were measured on if that is known."""
        return StatisticsRecord(
            mean=self.statistics.mean.tolist(),
            std=self.statistics.std.tolist(),
            num_vectors=None if measured is None else measured.num_vectors,
            num_images=None if measured is None else measured.num_images,
            source="unknown" if measured is None else measured.source,
            tokenizer_identity=self.identity(),
            patch_size=self.options.grouping,
            image_size=self.options.image_size,
        )

    def _load_statistics(self) -> None:
        file = self.statistics_file
        if self.options.latents == "scaled" or file is None:
            return
        if self.options.statistics is None and not file.is_file():
            return
        record = read_statistics(file)
        check_statistics(
            record,
            file,
            channels=self.statistics.num_channels,
            patch_size=self.options.grouping,
            image_size=self.options.image_size,
            identity=self.identity(),
        )
        self.statistics.restore(torch.tensor(record.mean), torch.tensor(record.std))
        self._record = record

    def _token_side(self) -> int:
        """Tokens along one side. Raises `ConfigurationError` unless whole groups cover the latents."""
        side, grouping = self._latent_grid.height, self.options.grouping
        if side % grouping:
            unit = down_factor(self.autoencoder) * grouping
            raise ConfigurationError(
                f"Expected patch_size to divide the {side} x {side} latents of an image of {self.options.image_size} "
                f"pixels, found {grouping}. Choose an image_size that is a multiple of {unit}, or another patch_size."
            )
        return side // grouping
