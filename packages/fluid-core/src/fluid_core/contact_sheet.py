"""A labelled sheet of pictures, to be looked at by people."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from fluid_core.atomic_files import write_bytes
from fluid_core.errors import InvalidRequestError

_MARGIN = 14
_BACKGROUND = (250, 250, 248)
_INK = (40, 40, 44)
_FAINT = (120, 120, 126)
_FRAME = (214, 214, 210)


def contact_sheet(
    images: Sequence[Image.Image],
    labels: Sequence[str],
    *,
    num_columns: int = 6,
    tile_size: int = 160,
    title: str = "",
    marks: Sequence[bool] | None = None,
) -> Image.Image:
    """Pictures in rows, each with its label below.

    Pictures smaller than a tile are enlarged without smoothing, so that what a model drew stays what is seen. `marks`
    adds a green or red bar under each picture, for right and wrong. Raises `InvalidRequestError` if pictures and labels
    differ in number.
    """
    if len(images) != len(labels) or not images:
        raise InvalidRequestError(
            f"Expected one label per picture, found {len(images)} pictures and {len(labels)} labels."
        )
    num_columns = min(num_columns, len(images))
    font, title_font = ImageFont.load_default(size=13), ImageFont.load_default(size=19)
    lines = [textwrap.wrap(label, width=max(8, tile_size // 7)) or [""] for label in labels]
    label_height = 17 * max(len(wrapped) for wrapped in lines) + 12
    title_height = 40 if title else 0
    num_rows = -(-len(images) // num_columns)
    cell_width, cell_height = tile_size + _MARGIN, tile_size + label_height + _MARGIN
    sheet = Image.new(
        "RGB",
        (num_columns * cell_width + _MARGIN, title_height + num_rows * cell_height + _MARGIN),
        _BACKGROUND,
    )
    draw = ImageDraw.Draw(sheet)
    if title:
        draw.text((_MARGIN, _MARGIN), title, font=title_font, fill=_INK)
    for index, (image, wrapped) in enumerate(zip(images, lines, strict=True)):
        row, column = divmod(index, num_columns)
        left = _MARGIN + column * cell_width
        top = title_height + _MARGIN + row * cell_height
        tile = _fitted(image, tile_size)
        sheet.paste(tile, (left + (tile_size - tile.width) // 2, top + (tile_size - tile.height) // 2))
        draw.rectangle((left - 1, top - 1, left + tile_size, top + tile_size), outline=_FRAME)
        if marks is not None:
            colour = (62, 160, 85) if marks[index] else (205, 70, 60)
            draw.rectangle((left, top + tile_size + 2, left + tile_size - 1, top + tile_size + 4), fill=colour)
        for number, line in enumerate(wrapped):
            draw.text(
                (left, top + tile_size + 8 + 17 * number),
                line,
                font=font,
                fill=_INK if marks is None else _FAINT,
            )
    return sheet


def _fitted(image: Image.Image, tile_size: int) -> Image.Image:
    """The picture in its own proportions, as large as fits a tile."""
    scale = tile_size / max(image.size)
    method = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.convert("RGB").resize(size, method)


def save_image(image: Image.Image, path: Path) -> None:
    """Write a PNG, whole or not at all. Raises `OutputError` if it can not be written."""
    content = io.BytesIO()
    image.save(content, format="PNG")
    write_bytes(path, content.getvalue())
