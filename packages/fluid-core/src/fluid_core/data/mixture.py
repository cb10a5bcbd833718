"""Several data sets as one: pictures of each in fixed shares, evenly mixed."""

import math
from fractions import Fraction

from fluid_core.catalog import installed_components
from fluid_core.data.captioned_images import CaptionedImage, CaptionedImages, EpochVariants
from fluid_core.data.encoded_images import EncodedImages
from fluid_core.data.options import MixtureOptions
from fluid_core.errors import ConfigurationError, DataError
from fluid_core.exchange import DatasetContext

_PERIOD = 1000
"""Items after which the pattern of parts repeats: shares are exact to a thousandth."""


class MixtureDataset:
    """Items of several data sets with random access. A `CaptionedImages` with `EpochVariants`.

    Item `i` belongs to a part by the position of `i` in a pattern that spreads every part evenly, so any run of items
    holds the parts in their shares. The mixture is as long as it takes to show each part whole; smaller parts come
    more than once, and what a part draws for an item is drawn anew each time.

    Raises `DataError` for a part without items, and `ConfigurationError` for one whose share is below a thousandth.
    """

    def __init__(self, parts: tuple[CaptionedImages, ...], weights: tuple[float, ...]) -> None:
        self.parts = parts
        self.image_size = parts[0].image_size
        if empty := [index for index, part in enumerate(parts) if len(part) == 0]:
            raise DataError(f"Part {empty[0] + 1} of the mixture is empty: expected at least one captioned image.")
        counts = _slots(weights)
        if 0 in counts:
            raise ConfigurationError(
                f"Part {counts.index(0) + 1} of the mixture has a share below a thousandth. Raise its weight, or leave "
                "it out."
            )
        spread = sorted(
            ((2 * place + 1) / (2 * count), part, place) for part, count in enumerate(counts) for place in range(count)
        )
        self._pattern = [(part, place) for _, part, place in spread]
        self._counts = counts
        self._length = max(math.ceil(len(part) * _PERIOD / count) for part, count in zip(parts, counts, strict=True))
        self._num_rounds = [
            math.ceil(math.ceil(self._length / _PERIOD) * count / len(part))
            for part, count in zip(parts, counts, strict=True)
        ]

    def __len__(self) -> int:
        """Number of items."""
        return self._length

    def __getitem__(self, index: int) -> CaptionedImage:
        """Item `index`. Raises `IndexError` outside 0 ... len - 1, and what the part raises for a damaged picture."""
        return self.variant(index, epoch=0)

    @property
    def varies(self) -> bool:
        """Whether the items of any part differ between epochs."""
        return any(isinstance(part, EpochVariants) and part.varies for part in self.parts)

    def variant(self, index: int, *, epoch: int) -> CaptionedImage:
        """Item `index` as it looks in `epoch` of the mixture. Raises as `mixture[index]` does."""
        if not 0 <= index < self._length:
            raise IndexError(f"The mixture has the items 0 to {self._length - 1}, asked for {index}.")
        turn, slot = divmod(index, _PERIOD)
        number, place = self._pattern[slot]
        part = self.parts[number]
        round_of_part, item = divmod(turn * self._counts[number] + place, len(part))
        if isinstance(part, EpochVariants):
            return part.variant(item, epoch=epoch * self._num_rounds[number] + round_of_part)
        return part[item]


def _slots(weights: tuple[float, ...]) -> list[int]:
    """How many of the pattern's places each part gets: by largest remainders, so that they add up."""
    total = sum(Fraction(weight) for weight in weights)
    exact = [Fraction(weight) * _PERIOD / total for weight in weights]
    counts = [math.floor(share) for share in exact]
    most_left_over = sorted(range(len(exact)), key=lambda index: counts[index] - exact[index])
    for index in most_left_over[: _PERIOD - sum(counts)]:
        counts[index] += 1
    return counts


def build_mixture(options: MixtureOptions, context: DatasetContext) -> MixtureDataset:
    """Build every part for the same split, seed and size of pictures. Raises what building the parts raises."""
    parts = []
    for part in options.parts:
        built: object = installed_components().build("dataset", part.name, part.options, context)
        if isinstance(built, EncodedImages):
            raise ConfigurationError(
                f"A mixture is made of data sets of pictures; those of '{part.name}' are tokens already. Mix the "
                "pictures, and build one token cache of the mixture."
            )
        if not isinstance(built, CaptionedImages):
            raise ConfigurationError(
                f"A mixture is made of data sets with random access; '{part.name}' is read as a stream. Mix its "
                "pictures on disk."
            )
        parts.append(built)
    return MixtureDataset(tuple(parts), tuple(part.weight for part in options.parts))
