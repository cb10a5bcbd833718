"""A picture of originals and what several tokenizers make of them, to be looked at by people."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from fluid_core.errors import InvalidRequestError

_BACKGROUND, _INK, _FAINT, _RULE = (250, 250, 248), (40, 40, 44), (120, 120, 126), (214, 214, 210)
_MARGIN, _GAP = 20, 6
_LINE_HEIGHT = 20
_SMALLEST_TILE = 112


def reconstruction_sheet(
    rows: Sequence[Sequence[Image.Image]], labels: Sequence[Sequence[str]], *, title: str
) -> Image.Image:
    """Pictures of equal size in rows: each row begins with its label, whose first line is its heading.

    Small pictures are enlarged by a whole factor without smoothing, so that what is seen is what was decoded. Raises
    `InvalidRequestError` for rows of different lengths or a label too few.
    """
    if not rows or not rows[0] or len(rows) != len(labels) or len({len(row) for row in rows}) != 1:
        raise InvalidRequestError(
            f"Expected rows of equally many pictures with a label each, found rows of {[len(row) for row in rows]} "
            f"pictures and {len(labels)} labels."
        )
    factor = max(1, -(-_SMALLEST_TILE // max(rows[0][0].size)))
    width, height = (factor * side for side in rows[0][0].size)
    heading, small = ImageFont.load_default(size=16), ImageFont.load_default(size=13)
    label_width = 28 + round(
        max(
            font.getlength(line)
            for label in labels
            for line, font in zip(label, (heading, *[small] * len(label)), strict=False)
        )
    )
    top = 58
    sheet = Image.new(
        "RGB",
        (
            2 * _MARGIN + label_width + len(rows[0]) * (width + _GAP) - _GAP,
            top + len(rows) * (height + _GAP) - _GAP + _MARGIN,
        ),
        _BACKGROUND,
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 18), title, font=ImageFont.load_default(size=19), fill=_INK)
    for index, (row, label) in enumerate(zip(rows, labels, strict=True)):
        y = top + index * (height + _GAP)
        if index == 1:
            # Sets the originals apart from what was made of them.
            draw.line((_MARGIN, y - _GAP // 2 - 1, sheet.width - _MARGIN, y - _GAP // 2 - 1), fill=_RULE, width=2)
        text_top = y + (height - _LINE_HEIGHT * len(label)) // 2
        for number, line in enumerate(label):
            font, ink = (heading, _INK) if number == 0 else (small, _FAINT)
            drop = 0 if number == 0 else 3
            draw.text((_MARGIN, text_top + drop + number * _LINE_HEIGHT), line, font=font, fill=ink)
        for column, picture in enumerate(row):
            tile = picture.convert("RGB").resize((width, height), Image.Resampling.NEAREST)
            sheet.paste(tile, (_MARGIN + label_width + column * (width + _GAP), y))
    return sheet
