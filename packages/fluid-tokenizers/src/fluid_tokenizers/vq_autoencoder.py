"""VQGANs from diffusers: ids of a trained codebook as tokens (paper, section 3: the discrete tokenizer)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fluid_core.exchange import BatchShare, ReconstructionLoss
from fluid_core.identity import RememberedIdentity
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import DiscreteTokens, TokenSpace
from fluid_tokenizers.autoencoder_grid import check_latents, latent_grid
from fluid_tokenizers.autoencoder_identity import autoencoder_identity
from fluid_tokenizers.autoencoder_loading import load_autoencoder
from fluid_tokenizers.autoencoder_precision import own_precision
from fluid_tokenizers.autoencoder_training import vq_reconstruction_loss
from fluid_tokenizers.codebook_upkeep import CodebookUpkeep
from fluid_tokenizers.image_checks import check_images
from fluid_tokenizers.options import VQAutoencoderOptions

CLASSES = ("VQModel",)
"""Classes of diffusers that this tokenizer takes."""

_CHUNK = 4096
"""Latents compared with the codebook at once: bounds the table of distances."""


class VQAutoencoder(nn.Module):
    """Each token is the id of the codeword nearest to one latent of the encoder.

    Raises what `load_autoencoder` does, and `ConfigurationError` for an image size that the latents do not cover.
    """

    def __init__(self, options: VQAutoencoderOptions) -> None:
        super().__init__()
        self.options = options
        self.autoencoder: Any = load_autoencoder(options, CLASSES)
        self._grid = latent_grid(self.autoencoder, options.image_size)
        self.image_size: tuple[int, int] = (options.image_size, options.image_size)
        config = self.autoencoder.config
        self._code_channels = int(config["vq_embed_dim"] or config["latent_channels"])
        self.token_space: TokenSpace = DiscreteTokens(grid=self._grid, vocabulary_size=int(config["num_vq_embeddings"]))
        self._identity = RememberedIdentity()
        self.upkeep = CodebookUpkeep(self.token_space.vocabulary_size, self._code_channels, options.training)

    @torch.no_grad()
    def precompute(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """`ids`: `batch length`, the nearest codeword of every latent, in raster order.

        Raises `InvalidRequestError` for images of a wrong size, or outside [-1, 1].
        """
        check_images(images, self.image_size)
        with own_precision(self.autoencoder) as dtype:
            latents = self.autoencoder.encode(images.to(dtype)).latents.float()
            check_latents(latents, self._code_channels, self._grid)
            vectors = latents.permute(0, 2, 3, 1).flatten(0, 2)
            codebook = self.codebook.float()
            ids = [torch.cdist(chunk, codebook).argmin(dim=1) for chunk in vectors.split(_CHUNK)]
        return {"ids": torch.cat(ids).view(len(images), self._grid.length)}

    def tokens(
        self,
        precomputed: Mapping[str, Tensor],
        *,
        random: KeyedRandom,  # noqa: ARG002  (encoding is deterministic)
    ) -> Int[Tensor, "batch length"]:
        """The ids, as int64 (a cache may hold them in a smaller type)."""
        return precomputed["ids"].long()

    def decode(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch 3 height width"]:
        """Images in [-1, 1] decoded from codewords.

        Raises `InvalidTokensError` for ids outside the vocabulary.
        """
        self.token_space.validate(tokens)
        shape = (len(tokens), self._grid.height, self._grid.width, self._code_channels)
        with own_precision(self.autoencoder):
            if self.autoencoder.config["lookup_from_codebook"]:
                decoded = self.autoencoder.decode(tokens, force_not_quantize=True, shape=shape).sample
            else:
                codes = self.autoencoder.quantize.get_codebook_entry(tokens, shape=shape)
                decoded = self.autoencoder.decode(codes, force_not_quantize=True).sample
        images: Tensor = decoded.float().clamp(-1, 1)
        return images

    def reconstruction_loss(
        self,
        images: Float[Tensor, "batch 3 height width"],
        *,
        generator: torch.Generator,  # noqa: ARG002  (nothing is drawn)
        share: BatchShare | None = None,
    ) -> ReconstructionLoss:
        """The loss that the option `training` describes. Raises `InvalidRequestError` for a wrong size or range."""
        check_images(images, self.image_size)
        return vq_reconstruction_loss(self.autoencoder, images, self.options.training, self.upkeep, share=share)

    def after_step(self, *, generator: torch.Generator) -> dict[str, float]:
        """Look after the codebook: how much of it is used, and codes that nothing uses moved to where they are."""
        return self.upkeep.after_step(self.codebook, generator=generator)

    @property
    def codebook(self) -> Float[Tensor, "codewords channels"]:
        """The codewords, one a row."""
        weight: Tensor = self.autoencoder.quantize.embedding.weight
        return weight

    def identity(self) -> str:
        """Hash of the autoencoder's configuration and weights, computed once and again when they change."""
        return autoencoder_identity(self.autoencoder, self._identity)

    @property
    def folder_option(self) -> str:
        """`path`."""
        return "path"

    @property
    def superseded_options(self) -> tuple[str, ...]:
        """Where within a pipeline or hub repository the weights were."""
        return ("subfolder", "revision")

    @property
    def stored_modules(self) -> tuple[str, ...]:
        """`autoencoder`, unless it was made from an architecture."""
        return () if self.options.location is None else ("autoencoder",)

    def save_pretrained(self, folder: Path) -> None:
        """Write the autoencoder to `folder` as diffusers does: config.json and safetensors."""
        self.autoencoder.save_pretrained(folder, safe_serialization=True)
