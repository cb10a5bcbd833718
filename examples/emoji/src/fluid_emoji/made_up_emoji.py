"""A tiny folder of made-up drawings in the layout of the fetched ones, so that tests need no network."""

import colorsys
import math
from pathlib import Path

from PIL import Image, ImageDraw

from fluid_core.atomic_files import write_json
from fluid_emoji.emoji_folder import INDEX_FILE, Emoji, index_content
from fluid_emoji.scenes.vocabulary import scene_vocabulary

MADE_UP_NAMES = (
    *("apple", "car", "balloon", "book", "fish", "star"),
    *("dog", "cat", "lemon", "cactus", "house", "moon"),
)
"""The objects of the made-up folder: names of `scenes/objects.csv`, the first six of which can be recoloured."""

_STYLES = ("noto", "twemoji")
_SIDE = 64


def write_made_up_folder(folder: Path) -> None:
    """Fill `folder` with a dozen blobs in two styles, each of its own colour and outline, and their index."""
    vocabulary = scene_vocabulary(MADE_UP_NAMES)
    emoji = []
    for number, kind in enumerate(vocabulary.kinds):
        for style in _STYLES:
            path = folder / style / f"{kind.code_point}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            _blob(number, smooth=style == "noto").save(path)
        emoji.append(
            Emoji(
                code_point=kind.code_point,
                name=kind.name,
                category="Objects",
                subcategory="made up",
                keywords=("blob", "made up"),
                styles=_STYLES,
            )
        )
    write_json(folder / INDEX_FILE, index_content(tuple(emoji), ("made up",)))


def _blob(number: int, *, smooth: bool) -> Image.Image:
    """A star-like blob with a dark outline and a light spot, wider or higher than it is high or wide."""
    picture = Image.new("RGBA", (_SIDE, _SIDE))
    draw = ImageDraw.Draw(picture)
    red, green, blue = (round(255 * value) for value in colorsys.hsv_to_rgb(number / 12, 0.85, 0.85))
    radii = (24, 30) if number % 2 else (30, 24)
    points = []
    for step in range(48):
        angle = 2 * math.pi * step / 48
        wave = 1 - 0.16 * (1 + math.cos((3 + number % 5) * angle)) / 2 * (1 if smooth else 1.6)
        points.append((32 + radii[0] * wave * math.cos(angle), 32 + radii[1] * wave * math.sin(angle)))
    draw.polygon(points, fill=(red, green, blue, 255), outline=(40, 40, 40, 255), width=3)
    draw.ellipse((22, 20, 30, 28), fill=(255, 255, 255, 255))
    return picture
