"""Drawings cut out of their files, recoloured if wanted, and scaled to the pixels they will cover."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar

import attrs
import numpy as np
import numpy.typing as npt
from PIL import Image

from fluid_core.errors import UnreadableImageError
from fluid_emoji.emoji_folder import EmojiFolder
from fluid_emoji.recoloring import recolored

# Fainter pixels at the rim are cut off, so that the box of a drawing is where it can be seen.
_FAINTEST_ALPHA = 24
# Files remembered, cut out and reduced, and drawings at the size of use. Both hold those of one data set at 64 pixels.
_CUT_OUT_BYTES = 96 * 2**20
_SCALED_BYTES = 48 * 2**20


_Value = TypeVar("_Value")


class _Recent(Generic[_Value]):
    """Values by key, of which those used least lately are forgotten when they take too many bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._num_bytes = 0
        self._entries: OrderedDict[Hashable, tuple[_Value, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], tuple[_Value, int]]) -> _Value:
        """The value of `key`, made (with its size in bytes) if it is not remembered."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
            return entry[0]
        value, num_bytes = make()
        self._entries[key] = (value, num_bytes)
        self._num_bytes += num_bytes
        while self._num_bytes > self._most_bytes and len(self._entries) > 1:
            _, (_, forgotten_bytes) = self._entries.popitem(last=False)
            self._num_bytes -= forgotten_bytes
        return value


@attrs.frozen(kw_only=True, eq=False)
class Sprite:
    """A drawing of a certain size, ready to be laid over a picture. The arrays are shared: do not write to them."""

    paint: npt.NDArray[np.float32]
    """What it adds (3, height, width), in the scale of pictures from -1 to 1."""

    see_through: npt.NDArray[np.float32]
    """The share of what is behind it that stays visible (1, height, width)."""

    mean_color: tuple[float, float, float]
    """Its average red, green and blue, from 0 to 255."""

    def lay_over(self, picture: npt.NDArray[np.float32], left: int, top: int) -> None:
        """Draw it into `picture` (3, height, width; values in [-1, 1]), in place. It must fit there."""
        _, height, width = self.paint.shape
        window = picture[:, top : top + height, left : left + width]
        window *= self.see_through
        window += self.paint


class SpriteStore:
    """Reads drawings of one folder, to be used with at most `largest_side` pixels, and remembers those used lately.

    Raises nothing until a drawing is asked for.
    """

    def __init__(self, folder: EmojiFolder, *, largest_side: int) -> None:
        self.folder = folder
        self._largest_side = largest_side
        self._cut_out = _Recent[npt.NDArray[np.uint8]](_CUT_OUT_BYTES)
        self._scaled = _Recent[Sprite](_SCALED_BYTES)
        self._sizes: dict[tuple[str, str], tuple[int, int]] = {}

    def size(self, code_point: str, style: str) -> tuple[int, int]:
        """Width and height of a drawing in its file, without its empty rim. Raises as `sprite` does."""
        key = (code_point, style)
        if key not in self._sizes:
            pixels = self._pixels(code_point, style, None)
            self._sizes[key] = (pixels.shape[1], pixels.shape[0])
        return self._sizes[key]

    def sprite(self, code_point: str, style: str, size: tuple[int, int], color: str | None = None) -> Sprite:
        """A drawing scaled to fill `size` (width, height) in pixels, in another colour if one is named.

        Raises `UnreadableImageError` if its file is missing, damaged or empty.
        """
        key = (code_point, style, size, color)

        def make() -> tuple[Sprite, int]:
            sprite = _scaled(self._pixels(code_point, style, color), size)
            return sprite, sprite.paint.nbytes + sprite.see_through.nbytes

        return self._scaled.get(key, make)

    def _pixels(self, code_point: str, style: str, color: str | None) -> npt.NDArray[np.uint8]:
        def make() -> tuple[npt.NDArray[np.uint8], int]:
            pixels = _cut_out(self.folder.picture(code_point, style), self._largest_side)
            if color is not None:
                pixels = recolored(pixels, color)
            return pixels, pixels.nbytes

        return self._cut_out.get((code_point, style, color), make)


def _cut_out(path: Path, largest_side: int) -> npt.NDArray[np.uint8]:
    """The drawing as RGBA (rows, columns, 4) without its empty rim, halved while it is twice as large as needed."""
    try:
        with Image.open(path) as opened:
            picture = opened.convert("RGBA")
        while min(picture.size) >= 2 * largest_side:
            picture = picture.reduce(2)
        pixels = np.array(picture)
    # Damaged files make decoders raise almost anything.
    except Exception as error:
        raise UnreadableImageError(f"Could not read the drawing {path}: {error}. Fetch the emoji again.") from error
    visible = pixels[..., 3] >= _FAINTEST_ALPHA
    rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
    if not len(rows):
        raise UnreadableImageError(f"The drawing {path} is empty: nothing in it can be seen. Fetch the emoji again.")
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _scaled(pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> Sprite:
    # Pillow weighs colours by alpha when it resizes RGBA, so the rim takes no colour from invisible pixels.
    resized = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    values = np.asarray(resized, dtype=np.float32).transpose(2, 0, 1) / 255
    alpha = values[3:]
    mean = (values[:3] * alpha).sum(axis=(1, 2)) / max(float(alpha.sum()), 1e-6) * 255
    return Sprite(
        paint=np.ascontiguousarray((2 * values[:3] - 1) * alpha),
        see_through=np.ascontiguousarray(1 - alpha),
        mean_color=(float(mean[0]), float(mean[1]), float(mean[2])),
    )
