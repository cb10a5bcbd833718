"""Checks of the images a tokenizer is given, in words for the person who prepared them."""

from torch import Tensor

from fluid_core.errors import InvalidRequestError

_TOLERANCE = 1e-3
"""How far rounding may carry a value out of [-1, 1]."""


def check_images(images: Tensor, image_size: tuple[int, int]) -> None:
    """Raise `InvalidRequestError` unless `images` are finite, `batch 3 height width`, and in [-1, 1].

    `image_size` is the expected height and width in pixels. An empty batch is refused, too.
    """
    height, width = image_size
    if images.ndim != 4 or images.shape[1] != 3:
        raise InvalidRequestError(
            f"Expected RGB images of shape batch x 3 x {height} x {width}, found shape "
            f"{tuple(images.shape)}. Convert other colour modes to RGB and put the channels before height "
            "and width."
        )
    if tuple(images.shape[2:]) != image_size:
        raise InvalidRequestError(
            f"Expected images of {height} x {width} pixels (height x width), found {images.shape[2]} x "
            f"{images.shape[3]}. Resize and crop the images, or build the tokenizer for this size."
        )
    if images.shape[0] == 0:
        raise InvalidRequestError("Expected at least one image, found an empty batch. Check the data set.")
    if not images.is_floating_point():
        raise InvalidRequestError(
            f"Expected images as floating point numbers in [-1, 1], found {images.dtype}. Convert bytes with "
            "images / 127.5 - 1."
        )
    lowest, highest = float(images.amin()), float(images.amax())
    # Written so that NaN, for which every comparison is false, is refused as well.
    if not (lowest >= -1 - _TOLERANCE and highest <= 1 + _TOLERANCE):
        raise InvalidRequestError(
            f"Expected finite images in [-1, 1], found values from {lowest:.4g} to {highest:.4g}. Scale "
            "0...255 with images / 127.5 - 1 and 0...1 with images * 2 - 1."
        )
