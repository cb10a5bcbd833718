"""Patches of pixels as continuous tokens: a tokenizer that loses nothing and needs no weights."""

from collections.abc import Mapping

import attrs
from jaxtyping import Float
from torch import Tensor, nn

from fluid_core.identity import identity_of
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import ContinuousTokens, Grid, TokenSpace
from fluid_tokenizers.image_checks import check_images
from fluid_tokenizers.latent_statistics import LatentStatistics
from fluid_tokenizers.options import PixelPatchesOptions
from fluid_tokenizers.patching import from_patches, to_patches


class PixelPatches(nn.Module):
    """Each token is one square patch, flattened to 3 * patch_size^2 values and normalised per channel.

    `fit` measures the normalisation; before that the tokens are the plain pixel values, and `fitted` is
    False.
    """

    def __init__(self, options: PixelPatchesOptions | None = None) -> None:
        super().__init__()
        self.options = options = options or PixelPatchesOptions()
        side = options.image_size // options.patch_size
        self.image_size: tuple[int, int] = (options.image_size, options.image_size)
        self.token_space: TokenSpace = ContinuousTokens(
            grid=Grid(height=side, width=side), channels=3 * options.patch_size**2
        )
        self.statistics = LatentStatistics(self.token_space.channels)

    @property
    def fitted(self) -> bool:
        """True once statistics were measured by `fit`, or loaded."""
        return self.statistics.measured

    def fit(self, images: Float[Tensor, "batch 3 height width"], *, seed: int) -> None:  # noqa: ARG002
        """Measure mean and standard deviation of each channel over all patches of `images` (in [-1, 1]).

        Nothing is random here, whatever `seed`. Raises `InvalidRequestError` for images of a wrong size or
        range.
        """
        self.statistics.measure(self.precompute(images)["patches"].flatten(0, 1))

    def precompute(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """`patches`: `batch length channels`, not normalised, so that they outlive a change of the
        statistics.

        Raises `InvalidRequestError` for images of a wrong size, or outside [-1, 1].
        """
        check_images(images, self.image_size)
        return {"patches": to_patches(images.float(), self.options.patch_size)}

    def tokens(
        self,
        precomputed: Mapping[str, Tensor],
        *,
        random: KeyedRandom,  # noqa: ARG002  (encoding is deterministic)
    ) -> Float[Tensor, "batch length channels"]:
        """Normalised patches in raster order."""
        return self.statistics.normalize(precomputed["patches"])

    def decode(self, tokens: Float[Tensor, "batch length channels"]) -> Float[Tensor, "batch 3 height width"]:
        """Images in [-1, 1]; values a model drew outside are clamped."""
        patches = self.statistics.denormalize(tokens)
        return from_patches(patches, self.token_space.grid, self.options.patch_size).clamp(-1, 1)

    def identity(self) -> str:
        """Hash of the options: the statistics are applied after what `precompute` returns."""
        return identity_of({"class": "PixelPatches", **attrs.asdict(self.options)}, {})
