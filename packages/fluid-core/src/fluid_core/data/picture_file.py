"""Reads one picture file of any size and mode into a tensor of a wanted size."""

import io
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageOps
from torch import Tensor

from fluid_core.errors import ImageSizeError, UnreadableImageError

_LARGEST_16_BIT = 65535


def read_picture(
    source: Path | bytes,
    image_size: tuple[int, int],
    *,
    name: str | None = None,
    crop_at: tuple[float, float] | None = (0.5, 0.5),
    mirrored: bool = False,
    min_image_size: int = 1,
    max_pixels: int | None = None,
) -> Float[Tensor, "3 height width"]:
    """Read a picture file, or its bytes, as red, green and blue in [-1, 1] with `image_size` (height, width) pixels.

    Turned as its EXIF data says, laid on white where transparent, 16-bit greys scaled down, and resized with a
    Lanczos filter. The largest part of the wanted aspect is cut out at `crop_at`: from (0, 0), top left, to (1, 1),
    bottom right. Without it the picture is stretched. `mirrored` swaps left and right.

    Raises `UnreadableImageError`, with `name` (by default the path), if it is missing, damaged or no picture, and
    `ImageSizeError` if its shorter side has fewer than `min_image_size` pixels, or it more than `max_pixels` in all.
    """
    height, width = image_size
    name = name or (str(source) if isinstance(source, Path) else "without a name")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as opened:
            _check_size(opened.size, name, min_image_size, max_pixels)
            # JPEG decoders can reduce while they decode: much faster for photographs, still twice our size.
            opened.draft(None, (2 * max(height, width), 2 * max(height, width)))
            picture = in_rgb(ImageOps.exif_transpose(opened))
    except ImageSizeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageSizeError(f"The picture {name} is too large to be opened: {error}") from error
    # Damaged files make decoders raise almost anything: RuntimeError, SyntaxError, struct.error, OverflowError, ...
    except Exception as error:
        cause = str(error).rstrip(".") or type(error).__name__
        raise UnreadableImageError(f"Could not read the picture {name}: {cause}.") from error
    if crop_at is not None:
        scale = min(picture.width / width, picture.height / height)
        left, top = (picture.width - scale * width) * crop_at[1], (picture.height - scale * height) * crop_at[0]
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


def _check_size(size: tuple[int, int], name: str, smallest: int, most_pixels: int | None) -> None:
    width, height = size
    if min(size) < smallest:
        raise ImageSizeError(
            f"The picture {name} has {width} x {height} pixels; its shorter side must have {smallest}."
        )
    if most_pixels is not None and width * height > most_pixels:
        raise ImageSizeError(f"The picture {name} has {width} x {height} pixels, which is more than {most_pixels}.")


def in_rgb(picture: Image.Image) -> Image.Image:
    """The picture in red, green and blue: laid on white where transparent, 16-bit greys scaled down.

    Raises `ValueError` for pixels that are floating-point numbers.
    """
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
