"""A data set of flags: an upper and a lower half, each of one colour."""

import torch

from fluid_core.data.captioned_images import CaptionedImage
from fluid_core.exchange import DatasetContext

_COLOURS = {
    "red": (1.0, -1.0, -1.0),
    "green": (-1.0, 1.0, -1.0),
    "blue": (-1.0, -1.0, 1.0),
    "yellow": (1.0, 1.0, -1.0),
    "white": (1.0, 1.0, 1.0),
}
_FLAGS = [(upper, lower) for upper in _COLOURS for lower in _COLOURS]


class TinyFlags:
    """Every pair of five colours once, such as "red over blue"; one pair in five belongs to the validation split."""

    def __init__(self, context: DatasetContext) -> None:
        self.image_size = context.image_size
        for_validation = context.split == "validation"
        self._flags = [flag for i, flag in enumerate(_FLAGS) if (i % 5 == 2) == for_validation]

    def __len__(self) -> int:
        """Number of flags in this split."""
        return len(self._flags)

    def __getitem__(self, index: int) -> CaptionedImage:
        """Flag `index`. Raises `IndexError` outside 0 ... len - 1."""
        if not 0 <= index < len(self._flags):
            raise IndexError(f"Expected an index from 0 to {len(self._flags) - 1}, found {index}.")
        upper, lower = self._flags[index]
        height, width = self.image_size
        image = torch.empty(3, height, width)
        image[:, : height // 2] = torch.tensor(_COLOURS[upper])[:, None, None]
        image[:, height // 2 :] = torch.tensor(_COLOURS[lower])[:, None, None]
        return CaptionedImage(image=image, caption=f"{upper} over {lower}")
