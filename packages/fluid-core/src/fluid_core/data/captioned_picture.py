"""One item from a picture file and its captions: what is drawn, the crop, and why an item is left out.

All data sets of picture files make their items here, so that the same options mean the same everywhere.
"""

import hashlib
import random
from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import attrs

from fluid_core.data.captioned_images import CaptionedImage
from fluid_core.data.options import PictureOptions
from fluid_core.data.picture_file import read_picture
from fluid_core.errors import MissingCaptionError

AnyPictureOptions = TypeVar("AnyPictureOptions", bound=PictureOptions)

_MIDDLE = (0.5, 0.5)


@attrs.frozen(kw_only=True)
class ItemDraw:
    """What chance decides about one item: numbers from 0 to 1, each for one purpose."""

    column: float
    """Which of several caption columns."""

    caption: float
    """Which of a list of captions."""

    crop: tuple[float, float]
    """How far down and to the right a random crop lies."""

    mirrored: bool
    """A coin toss."""


def item_draw(seed: int, epoch: int, key: str) -> ItemDraw:
    """The draw of the item `key` in `epoch`: it depends on the three arguments alone, on every machine."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{key}".encode("utf-8", "surrogatepass")).digest()
    chance = random.Random(int.from_bytes(digest[:16], "big"))
    # Every number is always drawn, so that setting one option leaves what the others draw as it was.
    column, caption, down, right, coin = (chance.random() for _ in range(5))
    return ItemDraw(column=column, caption=caption, crop=(down, right), mirrored=coin < 0.5)


def captioned_picture(
    picture: Path | bytes,
    captions: Mapping[str, Any],
    *,
    name: str,
    options: PictureOptions,
    image_size: tuple[int, int],
    draw: ItemDraw,
    mirrored: bool,
) -> CaptionedImage:
    """The item of a picture and its caption columns, `captions`, called `name` in messages.

    Raises `MissingCaptionError`, `ImageSizeError` or `UnreadableImageError` if it can not be used.
    """
    caption = chosen_caption(captions, options, name=name, draw=draw)
    crop_at = {"center": _MIDDLE, "random": draw.crop, "none": None}[options.crop]
    image = read_picture(
        picture,
        image_size,
        name=name,
        crop_at=crop_at,
        mirrored=mirrored,
        min_image_size=options.min_image_size,
        max_pixels=options.max_pixels,
    )
    return CaptionedImage(image=image, caption=caption)


def chosen_caption(captions: Mapping[str, Any], options: PictureOptions, *, name: str, draw: ItemDraw) -> str:
    """One caption of an item: a column by its probability among those that hold a text, then one text of its list.

    Raises `MissingCaptionError` if no column holds one.
    """
    usable = {column: caption_texts(captions.get(column)) for column in options.caption_shares}
    shares = {column: share for column, share in options.caption_shares.items() if usable[column]}
    if not shares:
        found = ", ".join(f"'{column}': {_shown(captions.get(column))}" for column in usable)
        raise MissingCaptionError(f"The picture {name} has no caption: expected a text, found {found}.")
    ends = list(accumulate(shares.values()))
    texts = usable[list(shares)[min(bisect_right(ends, draw.column * ends[-1]), len(ends) - 1)]]
    return texts[min(int(draw.caption * len(texts)), len(texts) - 1)]


def validation_options(options: AnyPictureOptions) -> AnyPictureOptions:
    """The same options without what is only for training: pictures as they are, random crops from the middle."""
    crop = "center" if options.crop == "random" else options.crop
    return attrs.evolve(options, crop=crop, horizontal_flip=False)


def caption_texts(value: Any) -> tuple[str, ...]:
    """The captions in a value: a text or a list of texts. Empty texts, halves of characters and others do not count."""
    values = value if isinstance(value, list | tuple) else (value,)
    return tuple(text for text in values if isinstance(text, str) and text.strip() and _is_whole(text))


def _is_whole(text: str) -> bool:
    return text.isprintable() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def validation_rank(key: str) -> float:
    """A number from 0 to 1 that depends on the key alone, on every machine: which split an item belongs to."""
    return int.from_bytes(hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2.0**64


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."
