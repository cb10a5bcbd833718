"""The same prompts drawn by every model of a study, side by side."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from fluid_core.contact_sheet import save_image
from fluid_core.evaluation.plotting import counted

Row = Mapping[str, Any]

_BACKGROUND, _INK, _FAINT, _FRAME = (251, 251, 249), (40, 40, 44), (120, 120, 126), (214, 214, 210)
_RIGHT, _WRONG = (62, 160, 85), (205, 70, 60)
_TILE, _GAP, _MARGIN, _LABEL = 104, 12, 22, 150
_BAR = 4


def write_samples(rows: Sequence[Row], out: Path, path: Path, *, title: str) -> bool:
    """Write the sheet of the first seed of every model: a line for each size, a block for each variant.

    Runs without pictures are left out; with none there is no sheet, and the answer is false. Raises `OutputError` if it
    can not be written.
    """
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row["shown"]:
            first.setdefault((row["variant"], row["size"]), row)
    if not first:
        return False
    variants = list(dict.fromkeys(row["variant"] for row in rows))
    lines = sorted(first.values(), key=lambda row: (variants.index(row["variant"]), row["parameters"]))
    save_image(sample_sheet(lines, out, title=title), path)
    return True


def sample_sheet(rows: Sequence[Row], out: Path, *, title: str) -> Image.Image:
    """One line of pictures for each row, in order, under their prompts. `out` is the folder of the study."""
    prompts = [one["prompt"] for one in rows[0]["shown"]]
    small, normal, large = (ImageFont.load_default(size=size) for size in (12, 14, 19))
    wrapped = [textwrap.wrap(prompt, width=15) or [""] for prompt in prompts]
    head = 46 + 16 * max(map(len, wrapped)) + 8
    changes = [index for index, row in enumerate(rows) if index and row["variant"] != rows[index - 1]["variant"]]
    height_of = _TILE + _BAR + _GAP
    sheet = Image.new(
        "RGB",
        (
            2 * _MARGIN + _LABEL + len(prompts) * (_TILE + _GAP) - _GAP,
            head + len(rows) * height_of + len(changes) * _GAP + _MARGIN,
        ),
        _BACKGROUND,
    )
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, 14), title, font=large, fill=_INK)
    for column, text in enumerate(wrapped):
        x = _MARGIN + _LABEL + column * (_TILE + _GAP) + _TILE / 2
        for number, line in enumerate(text):
            y = head - 8 - 16 * (len(text) - number)
            draw.text((x, y), line, font=small, fill=_FAINT, anchor="ma")
    y = head
    for index, row in enumerate(rows):
        if index in changes:
            draw.line((_MARGIN, y, sheet.width - _MARGIN, y), fill=_FRAME, width=1)
            y += _GAP
        if index == 0 or index in changes:
            for number, line in enumerate(textwrap.wrap(row["variant"].replace("-", " "), width=18)):
                draw.text((_MARGIN, y + 4 + 17 * number), line, font=normal, fill=_INK)
        label = [f"{row['size']}: {counted(row['parameters'])}"]
        label += [f"overall {row['scores']['overall']:.2f}"] if row["scores"] else []
        for number, line in enumerate(label):
            draw.text((_MARGIN, y + _TILE - 16 * (len(label) - number)), line, font=small, fill=_FAINT)
        for column, shown in enumerate(row["shown"]):
            x = _MARGIN + _LABEL + column * (_TILE + _GAP)
            with Image.open(out / "runs" / row["run"] / shown["file"]) as picture:
                sheet.paste(_enlarged(picture), (x, y))
            draw.rectangle((x - 1, y - 1, x + _TILE, y + _TILE), outline=_FRAME)
            bar = _RIGHT if shown["correct"] else _WRONG
            draw.rectangle((x, y + _TILE + 2, x + _TILE - 1, y + _TILE + 1 + _BAR), fill=bar)
        y += height_of
    return sheet


def _enlarged(picture: Image.Image) -> Image.Image:
    """The picture as a square tile; small ones without smoothing, so that what was drawn is what is seen."""
    method = Image.Resampling.NEAREST if max(picture.size) <= _TILE else Image.Resampling.LANCZOS
    return picture.convert("RGB").resize((_TILE, _TILE), method)
