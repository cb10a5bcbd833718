"""Two tokenizers that see the mean colour of each patch: one token for each, as a vector or as one of eight ids."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from fluid_core.errors import InvalidRequestError
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import ContinuousTokens, DiscreteTokens, Grid, TokenSpace

_LARGEST_VALUE = 1.001
"""One, and a little for rounding."""


class TinyMeanColours(nn.Module):
    """A token is the mean colour of a patch, minus the mean colour of the images that were shown to `fit`.

    Before `fit` nothing is subtracted. Images are `grid` times `patch_size` pixels large; a flat patch comes back as
    it was. Raises `InvalidRequestError` for images of another shape or range.
    """

    mean_colour: Tensor
    fitted_marker: Tensor

    def __init__(self, *, grid: Grid | None = None, patch_size: int = 2) -> None:
        super().__init__()
        grid = grid or Grid(height=4, width=4)
        self.patch_size = patch_size
        self.image_size: tuple[int, int] = (grid.height * patch_size, grid.width * patch_size)
        self.token_space: TokenSpace = ContinuousTokens(grid=grid, channels=3)
        self.register_buffer("mean_colour", torch.zeros(3))
        # A buffer, so that a loaded tokenizer knows that it was fitted.
        self.register_buffer("fitted_marker", torch.zeros((), dtype=torch.bool))

    @property
    def fitted(self) -> bool:
        """True once `fit` was called, or fitted state loaded."""
        return bool(self.fitted_marker)

    def fit(self, images: Float[Tensor, "batch 3 height width"], *, seed: int) -> None:  # noqa: ARG002
        """Measure the mean colour. There is nothing to draw, whatever `seed`."""
        check_images(images, self.image_size)
        self.mean_colour.copy_(images.mean(dim=(0, 2, 3)))
        self.fitted_marker.fill_(True)

    def precompute(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """`colours`: `batch length 3`, without the statistics, so that they can be measured anew."""
        check_images(images, self.image_size)
        return {"colours": functional.avg_pool2d(images.float(), self.patch_size).flatten(2).mT}

    def tokens(
        self,
        precomputed: Mapping[str, Tensor],
        *,
        random: KeyedRandom,  # noqa: ARG002  (nothing is drawn)
    ) -> Float[Tensor, "batch length 3"]:
        """Colours relative to the mean."""
        return precomputed["colours"] - self.mean_colour

    def decode(self, tokens: Float[Tensor, "batch length 3"]) -> Float[Tensor, "batch 3 height width"]:
        """Flat patches; colours that do not exist are clamped."""
        colours = (tokens + self.mean_colour).clamp(-1, 1)
        return flat_patches(colours, self.token_space.grid, self.patch_size)


class TinyColourCodes(nn.Module):
    """A token is one of the eight colours of a patch: red, green and blue each more off or more on.

    Raises `InvalidRequestError` for images of another shape or range, `InvalidTokensError` for ids above seven.
    """

    def __init__(self, *, grid: Grid | None = None, patch_size: int = 2) -> None:
        super().__init__()
        grid = grid or Grid(height=4, width=4)
        self.patch_size = patch_size
        self.image_size: tuple[int, int] = (grid.height * patch_size, grid.width * patch_size)
        self.token_space: TokenSpace = DiscreteTokens(grid=grid, vocabulary_size=8)

    def precompute(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """`ids`: `batch length`, from 0 (black) to 7 (white)."""
        check_images(images, self.image_size)
        bright = functional.avg_pool2d(images.float(), self.patch_size).flatten(2) > 0
        return {"ids": bright[:, 0] * 4 + bright[:, 1] * 2 + bright[:, 2].long()}

    def tokens(
        self,
        precomputed: Mapping[str, Tensor],
        *,
        random: KeyedRandom,  # noqa: ARG002  (nothing is drawn)
    ) -> Int[Tensor, "batch length"]:
        """The ids themselves."""
        return precomputed["ids"]

    def decode(self, tokens: Int[Tensor, "batch length"]) -> Float[Tensor, "batch 3 height width"]:
        """Flat patches of the eight colours."""
        self.token_space.validate(tokens)
        bright = torch.stack([tokens // 4 % 2, tokens // 2 % 2, tokens % 2], dim=2)
        return flat_patches(bright * 2.0 - 1.0, self.token_space.grid, self.patch_size)


def flat_patches(
    colours: Float[Tensor, "batch length 3"], grid: Grid, patch_size: int
) -> Float[Tensor, "batch 3 height width"]:
    """Images of one flat square of `patch_size` pixels per colour."""
    small = colours.mT.reshape(-1, 3, grid.height, grid.width)
    return small.repeat_interleave(patch_size, dim=2).repeat_interleave(patch_size, dim=3)


def check_images(images: Tensor, image_size: tuple[int, int]) -> None:
    """Raise `InvalidRequestError` unless `images` are finite, `batch 3 height width`, and in [-1, 1]."""
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, *image_size):
        raise InvalidRequestError(
            f"Expected images of shape batch x 3 x {image_size[0]} x {image_size[1]}, found {tuple(images.shape)}. "
            "Resize them."
        )
    # NaN is not below anything, so it is refused as well.
    if not images.is_floating_point() or not bool((images.abs() < _LARGEST_VALUE).all()):
        raise InvalidRequestError("Expected finite images in [-1, 1]. Scale 0...255 with images / 127.5 - 1.")
