"""Reads one picture file of any size and mode into a tensor of a wanted size."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from fluid_core.errors import UnreadableImageError

_LARGEST_16_BIT = 65535


def read_picture(
    path: Path, image_size: tuple[int, int], *, center_crop: bool = True, mirrored: bool = False
) -> Float[Tensor, "3 height width"]:
    """Read `path` as red, green and blue in [-1, 1] with `image_size` (height, width) pixels.

    Turned as its EXIF data says, laid on white where transparent, 16-bit greys scaled down, and resized with a
    Lanczos filter. With `center_crop` the middle part of the wanted aspect is kept, otherwise the picture is
    stretched. `mirrored` swaps left and right.

    Raises `UnreadableImageError`, naming the file, if it is missing, damaged or no picture.
    """
    height, width = image_size
    try:
        with Image.open(path) as opened:
            # JPEG decoders can reduce while they decode: much faster for photographs, still twice our size.
            opened.draft(None, (2 * max(height, width), 2 * max(height, width)))
            picture = _in_rgb(ImageOps.exif_transpose(opened))
    # Damaged files make decoders raise almost anything: RuntimeError, SyntaxError, struct.error, OverflowError, ...
    except Exception as error:
        cause = str(error).rstrip(".") or type(error).__name__
        raise UnreadableImageError(f"Could not read the picture {path}: {cause}.") from error
    if center_crop:
        scale = min(picture.width / width, picture.height / height)
        left, top = (picture.width - scale * width) / 2, (picture.height - scale * height) / 2
        # Rounding errors may put a corner just outside the picture, which Pillow refuses.
        left, top = max(left, 0.0), max(top, 0.0)
        right, bottom = min(left + scale * width, picture.width), min(top + scale * height, picture.height)
        box = (left, top, right, bottom)
    else:
        box = (0.0, 0.0, float(picture.width), float(picture.height))
    resized = picture.resize((width, height), Image.Resampling.LANCZOS, box=box)
    values = np.asarray(resized, dtype=np.float32) / 127.5 - 1
    if mirrored:
        values = values[:, ::-1]
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def _in_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.float64)
        # Mode I holds 32 bits, but decoders use it for 16-bit pictures; smaller values are taken as 8-bit.
        largest = _LARGEST_16_BIT if picture.mode != "I" or values.max(initial=0) > 255 else 255
        greys = np.clip(values / largest * 255, 0, 255).round().astype(np.uint8)
        return Image.fromarray(greys).convert("RGB")
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers of an unknown range; save it with 8 or 16 bits")
    if picture.has_transparency_data:
        transparent = picture.convert("RGBA")
        white = Image.new("RGBA", transparent.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, transparent).convert("RGB")
    return picture.convert("RGB")
