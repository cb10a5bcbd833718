"""The `emoji` data set: one emoji per picture, in several drawing styles, with captions in several wordings."""

import hashlib
from types import MappingProxyType

import attrs
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.data.captioned_images import CaptionedImage
from fluid_core.errors import ConfigurationError, DataError
from fluid_emoji.backgrounds import BACKGROUNDS, clear_backgrounds, plain
from fluid_emoji.emoji_folder import Emoji, chosen_folder, read_emoji_folder
from fluid_emoji.names import article, with_article
from fluid_emoji.options import EmojiOptions
from fluid_emoji.sprites import SpriteStore

SMALLEST_SIDE = 32
"""Pixels a side below which drawings are no longer told apart."""

STYLE_WORDS = MappingProxyType(
    {
        "noto": ("cartoon drawing", "cartoon"),
        "twemoji": ("flat drawing", "flat icon"),
        "fluent": ("glossy 3D rendering", "3D picture"),
    }
)
"""How captions call the styles."""

# Part of every seed, so that the splits never share a stream. Existing numbers must not change.
_STREAMS = {"train": 0, "validation": 1}
_ORDER_STREAM = 2
# The longer side of a drawing, as a share of the picture's.
_SIZES = (0.7, 0.75, 0.8, 0.85, 0.9)
_BORDER = 0.03
_TINT = 5
"""How far, of 255, a background may be from the colour its name stands for."""


@attrs.frozen(kw_only=True)
class DrawnEmoji:
    """An item before it becomes pixels. Lengths are in pixels of the data set's image size."""

    emoji: Emoji
    style: str
    background_name: str
    background: tuple[int, int, int]
    left: int
    top: int
    size: tuple[int, int]
    """Width and height."""

    caption: str


class EmojiDataset:
    """Single emoji with captions. A `CaptionedImages`.

    Item `i` depends on the seed, the split and `i` alone: it is drawing `i mod d` of the split's `d` drawings, in an
    order drawn from the seed, with its own size, place, background and wording. Drawings belong to a split for good, by
    a hash of their code point (see the option `split_by`).

    Raises `ConfigurationError` for pictures below 32 pixels or a validation split of nothing, and `DataError` if the
    emoji were not fetched or the options leave none of them.
    """

    def __init__(self, options: EmojiOptions, image_size: tuple[int, int], split: str, seed: int) -> None:
        if min(image_size) < SMALLEST_SIDE:
            raise ConfigurationError(
                f"The data set 'emoji' draws pictures from {SMALLEST_SIDE} pixels a side, but the tokenizer takes "
                f"{image_size[0]} x {image_size[1]}. Choose a larger image_size for the tokenizer."
            )
        if split not in _STREAMS:
            raise ConfigurationError(f"Emoji have the splits 'train' and 'validation', found '{split}'.")
        if seed < 0:
            raise ConfigurationError(f"The seed of the data must not be negative, found {seed}.")
        self.options = options
        self.image_size = image_size
        self.split = split
        self.seed = seed
        self._length = options.num_examples if split == "train" else options.num_validation_examples
        folder = read_emoji_folder(chosen_folder(options.folder))
        self._sprites = SpriteStore(folder, largest_side=max(image_size))
        self.drawings = _drawings(folder.emoji, options, split)
        if not self.drawings:
            raise DataError(
                f"No emoji in {folder.path} has the categories {', '.join(options.categories)} and the styles "
                f"{', '.join(options.styles)} (split {split}). Widen these options, or fetch the emoji again."
            )
        order = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, _ORDER_STREAM))))
        self._order = order.permutation(len(self.drawings))

    def __len__(self) -> int:
        """Number of items of this split."""
        return self._length

    def __getitem__(self, index: int) -> CaptionedImage:
        """Item `index` as a picture in [-1, 1] and its caption.

        Raises `IndexError` outside 0 ... len - 1, and `UnreadableImageError` for a drawing that is damaged.
        """
        drawn = self.example(index)
        return CaptionedImage(image=self._draw(drawn), caption=drawn.caption)

    def example(self, index: int) -> DrawnEmoji:
        """What item `index` shows. Raises as `__getitem__` does."""
        if not 0 <= index < self._length:
            raise IndexError(f"The {self.split} split has the items 0 to {self._length - 1}, asked for {index}.")
        emoji, style = self.drawings[int(self._order[index % len(self._order)])]
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, _STREAMS[self.split], index))))
        numbers = rng.random(5).tolist()
        width, height = self._fitted(emoji, style, _SIZES[int(numbers[0] * len(_SIZES))])
        mean_color = self._sprites.sprite(emoji.code_point, style, (width, height)).mean_color
        names = clear_backgrounds(mean_color)
        name = names[int(numbers[1] * len(names))]
        tint = rng.integers(-_TINT, _TINT + 1, 3).tolist()
        red, green, blue = (
            min(max(value + change, 0), 255) for value, change in zip(BACKGROUNDS[name], tint, strict=True)
        )
        return DrawnEmoji(
            emoji=emoji,
            style=style,
            background_name=name,
            background=(red, green, blue),
            left=_place(self.image_size[1], width, numbers[2]),
            top=_place(self.image_size[0], height, numbers[3]),
            size=(width, height),
            caption=_caption(emoji, style, name, rng),
        )

    def _fitted(self, emoji: Emoji, style: str, share: float) -> tuple[int, int]:
        """Width and height of the drawing in pixels, in its own proportions."""
        width, height = self._sprites.size(emoji.code_point, style)
        scale = share * min(self.image_size[1] / width, self.image_size[0] / height)
        return max(1, round(width * scale)), max(1, round(height * scale))

    def _draw(self, drawn: DrawnEmoji) -> Float[Tensor, "3 height width"]:
        picture = plain(drawn.background, *self.image_size)
        sprite = self._sprites.sprite(drawn.emoji.code_point, drawn.style, drawn.size)
        sprite.lay_over(picture, drawn.left, drawn.top)
        return torch.from_numpy(picture).clamp_(-1, 1)


def _drawings(emoji: tuple[Emoji, ...], options: EmojiOptions, split: str) -> tuple[tuple[Emoji, str], ...]:
    """Every emoji and style of a split."""
    if split == "validation" and options.validation_fraction == 0:
        raise ConfigurationError("A validation split of emoji was asked for, but validation_fraction is 0.")
    chosen = []
    for one in emoji:
        if one.category not in options.categories:
            continue
        for style in options.styles:
            if style not in one.styles:
                continue
            key = one.code_point if options.split_by == "emoji" else f"{one.code_point} {style}"
            if (_rank(key) < options.validation_fraction) == (split == "validation"):
                chosen.append((one, style))
    return tuple(chosen)


def _rank(key: str) -> float:
    """A number from 0 to 1 that depends on the text alone, on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2.0**64


def _place(side: int, length: int, number: float) -> int:
    """Where a drawing of `length` begins, by chance from 0 to 1, near the middle of a side."""
    border = min(round(_BORDER * side), (side - length) // 2)
    return border + int(number * (side - length - 2 * border + 1))


def _caption(emoji: Emoji, style: str, background: str, rng: np.random.Generator) -> str:
    """One of several wordings: all name the emoji, most the style, some the background or keywords."""
    named, (long_style, short_style) = with_article(emoji.name), STYLE_WORDS[style]
    drawing = f"{article(long_style)} {long_style} of {named}"
    wording = rng.random()
    if wording < 0.35:
        return drawing
    if wording < 0.6:
        return f"{drawing} on {article(background)} {background} background"
    if wording < 0.75:
        return f"{named}, {short_style}"
    if wording < 0.85 and emoji.keywords:
        count = min(len(emoji.keywords), 2)
        words = [emoji.keywords[position] for position in sorted(rng.permutation(len(emoji.keywords))[:count].tolist())]
        return f"{drawing} ({', '.join(words)})"
    return named
