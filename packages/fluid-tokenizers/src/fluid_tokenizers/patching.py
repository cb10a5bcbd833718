"""Cutting images, or the latents of an autoencoder, into patches and putting them together again.

A patch becomes one vector, channel by channel and within a channel row by row: values are ordered (channel,
row, column) as in MAR, so that latents grouped here fit heads trained with its code.
"""

from jaxtyping import Shaped
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.token_space import Grid


def to_patches(
    images: Shaped[Tensor, "batch channels height width"], patch_size: int
) -> Shaped[Tensor, "batch length values"]:
    """Non-overlapping squares in raster order, each flattened to channels * patch_size^2 values.

    Raises `InvalidRequestError` if height or width is not a multiple of `patch_size`.
    """
    batch, channels, height, width = images.shape
    if height % patch_size or width % patch_size:
        raise InvalidRequestError(
            f"Expected height and width to be multiples of the patch size {patch_size}, found {height} x "
            f"{width}. Resize or crop the images, or choose a patch size that divides both."
        )
    rows, columns = height // patch_size, width // patch_size
    blocks = images.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return blocks.permute(0, 2, 4, 1, 3, 5).reshape(batch, rows * columns, channels * patch_size**2)


def from_patches(
    patches: Shaped[Tensor, "batch length values"], grid: Grid, patch_size: int
) -> Shaped[Tensor, "batch channels height width"]:
    """The exact inverse of `to_patches` for a `grid` of patches.

    Raises `InvalidRequestError` if the number of patches is not the grid's, or their values do not fill whole
    squares.
    """
    batch, length, values = patches.shape
    channels, remainder = divmod(values, patch_size**2)
    if length != grid.length or remainder:
        raise InvalidRequestError(
            f"Expected {grid.length} patches ({grid.height} x {grid.width}) with a multiple of "
            f"{patch_size**2} values each, found {length} patches with {values} values. The tokens belong to "
            "another grid."
        )
    blocks = patches.reshape(batch, grid.height, grid.width, channels, patch_size, patch_size)
    images = blocks.permute(0, 3, 1, 4, 2, 5)
    return images.reshape(batch, channels, grid.height * patch_size, grid.width * patch_size)
