"""How a picture file becomes pixels for a distance between sets of pictures, exactly as protocols have it.

Crop and filter move a FID by more than models differ, so both are named in every record. Pictures are decoded whole
(no shortcut of the decoder), not turned by EXIF data, converted to red, green and blue, cropped and resized once.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import attrs
import numpy as np
import torch
from attrs.validators import deep_iterable, ge, in_, instance_of
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from fluid_core.errors import UnreadableImageError

Crop = Literal["center", "none"]
Filter = Literal["lanczos", "bicubic", "bilinear", "box", "nearest"]

_FILTERS: Mapping[str, Image.Resampling] = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "box": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
}
PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


@attrs.frozen(kw_only=True)
class ImagePreparation:
    """Pixels of a picture file for a distance; all filters are Pillow's, which widen where a picture shrinks."""

    image_size: tuple[int, int] = attrs.field(
        validator=deep_iterable(member_validator=[instance_of(int), ge(1)], iterable_validator=instance_of(tuple))
    )
    """Height and width in the end."""

    crop: Crop = attrs.field(default="center", validator=in_(("center", "none")))
    """`center` cuts the largest part of the wanted aspect out of the middle, in whole pixels with odd ones left over at
    the end; for squares that is the short side. `none` stretches."""

    filter: Filter = attrs.field(default="lanczos", validator=in_(tuple(_FILTERS)))

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {**attrs.asdict(self), "image_size": list(self.image_size)}

    def prepared(self, path: Path) -> Float[Tensor, "3 height width"]:
        """The picture in [-1, 1]. Raises `UnreadableImageError` for a file that is missing, damaged or no picture."""
        height, width = self.image_size
        try:
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
        # Damaged files make decoders raise almost anything.
        except Exception as error:
            raise UnreadableImageError(f"Could not read the picture {path}: {error}.") from error
        if self.crop == "center":
            picture = _centre(picture, height, width)
        if picture.size != (width, height):
            picture = picture.resize((width, height), _FILTERS[self.filter])
        values = np.asarray(picture, dtype=np.float32) / 127.5 - 1
        return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))


def _centre(picture: Image.Image, height: int, width: int) -> Image.Image:
    if picture.width * height >= picture.height * width:
        cut_width, cut_height = max(1, picture.height * width // height), picture.height
    else:
        cut_width, cut_height = picture.width, max(1, picture.width * height // width)
    left, top = (picture.width - cut_width) // 2, (picture.height - cut_height) // 2
    return picture.crop((left, top, left + cut_width, top + cut_height))


def picture_files(folder: Path) -> list[Path]:
    """Picture files in a folder, by name; folders within it are not looked into."""
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in PICTURE_ENDINGS and path.is_file())
