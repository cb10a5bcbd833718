"""A data set of flags, by index and as a stream: an upper and a lower half, each of one colour."""

from collections.abc import Iterator

import torch

from fluid_core.data.captioned_images import CaptionedImage, StreamSample
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
        return _flag(*self._flags[index], self.image_size)


class TinyFlagStream:
    """The same flags as a stream: a shard for each colour of the upper half."""

    shuffle_buffer = 4
    varies = False

    def __init__(self, context: DatasetContext) -> None:
        self.image_size = context.image_size
        for_validation = context.split == "validation"
        self._flags = [flag for i, flag in enumerate(_FLAGS) if (i % 5 == 2) == for_validation]

    @property
    def num_shards(self) -> int:
        """One for each colour."""
        return len(_COLOURS)

    def samples(self, shard: int) -> Iterator[StreamSample]:
        """The flags whose upper half has colour `shard`. Raises `IndexError` for others."""
        if not 0 <= shard < self.num_shards:
            raise IndexError(f"Expected a shard from 0 to {self.num_shards - 1}, found {shard}.")
        colour = list(_COLOURS)[shard]
        for upper, lower in self._flags:
            if upper == colour:
                yield StreamSample(key=f"{shard}/{lower}", content=(upper, lower))

    def item(self, sample: StreamSample, *, epoch: int) -> CaptionedImage:  # noqa: ARG002
        """The flag of a sample, in every epoch."""
        upper, lower = sample.content
        return _flag(upper, lower, self.image_size)


def _flag(upper: str, lower: str, image_size: tuple[int, int]) -> CaptionedImage:
    height, width = image_size
    image = torch.empty(3, height, width)
    image[:, : height // 2] = torch.tensor(_COLOURS[upper])[:, None, None]
    image[:, height // 2 :] = torch.tensor(_COLOURS[lower])[:, None, None]
    return CaptionedImage(image=image, caption=f"{upper} over {lower}")
