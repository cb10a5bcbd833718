"""Gives a drawing another colour as a painter would: shading, outlines, wheels and windows stay what they are.

Works in OKLCh (Ottosson, "A perceptual color space for image processing", 2020), where lightness, chroma and hue can be
moved one by one. Only pixels near the drawing's own main hue are moved, and grey ones never.
"""

from types import MappingProxyType

import numpy as np
import numpy.typing as npt

PALETTE = MappingProxyType(
    {
        "red": (216, 40, 44),
        "orange": (247, 138, 22),
        "yellow": (252, 212, 40),
        "green": (58, 166, 72),
        "blue": (40, 104, 224),
        "purple": (138, 62, 190),
        "pink": (248, 134, 188),
        "black": (48, 48, 56),
    }
)
"""Red, green and blue, from 0 to 255, of what the colour words mean here."""

COLORS = tuple(PALETTE)

_Floats = npt.NDArray[np.float32]

# Björn Ottosson's matrices, from linear sRGB to cone responses and from their cube roots to Oklab.
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ],
    dtype=np.float32,
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ],
    dtype=np.float32,
)
_FROM_CONES = np.linalg.inv(_TO_CONES)
_FROM_LAB = np.linalg.inv(_TO_LAB)

# Chroma below the first number is grey and stays; from the second on, a pixel is fully coloured. In pale drawings both
# come down to these shares of the drawing's own chroma.
_GREY, _COLORED = 0.03, 0.08
_GREY_SHARE, _COLORED_SHARE = 0.25, 0.6
# Hues this far (in radians) from the main one move along fully; beyond the second number not at all.
_SAME_HUE, _OTHER_HUE = 0.62, 0.95
# How much of the variation of hue within a drawing survives.
_KEPT_HUE_VARIATION = 0.4
_NUM_HUE_BINS = 36


def recolored(pixels: npt.NDArray[np.uint8], color: str) -> npt.NDArray[np.uint8]:
    """A copy of `pixels` (rows, columns, RGBA, alpha not premultiplied) whose main colour is `color` of the palette.

    The typical pixel of the main hue gets exactly the palette's colour; lighter and darker ones keep their distance to
    it. Alpha is unchanged. A drawing without any colour is returned as it is. Raises `KeyError` for unknown colours.
    """
    target_lightness, target_chroma, target_hue = (float(value[0]) for value in _to_lch(_unit([PALETTE[color]])))
    lightness, chroma, hue = _to_lch(_unit(pixels[..., :3]))
    weight = chroma * (pixels[..., 3] > 127)
    if float(weight.max()) < _GREY:
        return pixels.copy()
    main_hue = _main_hue(hue, weight)
    turned = _angle(hue - main_hue)
    near = weight * (np.abs(turned) < _SAME_HUE)
    usual_chroma = float((near * chroma).sum() / near.sum())
    grey, colored = min(_GREY, _GREY_SHARE * usual_chroma), min(_COLORED, _COLORED_SHARE * usual_chroma)
    share = _ramp(chroma, grey, colored) * (1 - _ramp(np.abs(turned), _SAME_HUE, _OTHER_HUE))
    typical = (share > 0.5) & (pixels[..., 3] > 127)
    main_lightness, main_chroma = float(np.median(lightness[typical])), float(np.median(chroma[typical]))
    # 0 stays 0 and 1 stays 1, so that highlights and outlines remain.
    darker = target_lightness * lightness / main_lightness
    lighter = 1 - (1 - target_lightness) * (1 - lightness) / (1 - main_lightness)
    new_lightness = np.where(lightness < main_lightness, darker, lighter)
    new_chroma = target_chroma * np.minimum(chroma / main_chroma, 1.25)
    painted = _from_lch(new_lightness, new_chroma, target_hue + _KEPT_HUE_VARIATION * turned)
    before = pixels[..., :3].astype(np.float32)
    result = pixels.copy()
    result[..., :3] = np.rint(before + share[..., None] * (255 * painted - before)).astype(np.uint8)
    return result


def nearest_color(rgb: tuple[float, float, float]) -> str:
    """The word of the palette whose colour is nearest in Oklab to red, green and blue from 0 to 255."""
    wanted = _to_lab(_unit([rgb]))
    known = _to_lab(_unit([PALETTE[color] for color in COLORS]))
    return COLORS[int(((known - wanted) ** 2).sum(axis=1).argmin())]


def _main_hue(hue: _Floats, weight: _Floats) -> float:
    """Centre of the fullest stretch of hues, each pixel counting by its chroma."""
    bins = ((hue + np.pi) / (2 * np.pi) * _NUM_HUE_BINS).astype(int) % _NUM_HUE_BINS
    amounts = np.bincount(bins.ravel(), weights=weight.ravel(), minlength=_NUM_HUE_BINS)
    around = sum(np.roll(amounts, shift) for shift in (-2, -1, 0, 1, 2))
    middle = (int(np.argmax(around)) + 0.5) / _NUM_HUE_BINS * 2 * np.pi - np.pi
    offset = _angle(hue - middle)
    near = weight * (np.abs(offset) < _SAME_HUE)
    return middle + float((near * offset).sum() / near.sum())


def _unit(values: npt.ArrayLike) -> _Floats:
    """Bytes as numbers from 0 to 1."""
    scaled: _Floats = np.asarray(values, dtype=np.float32) * np.float32(1 / 255)
    return scaled


def _ramp(values: _Floats, start: float, end: float) -> _Floats:
    """0 up to `start`, 1 from `end` on, smooth between."""
    share = np.clip((values - start) / (end - start), 0, 1)
    smooth: _Floats = share * share * (3 - 2 * share)
    return smooth


def _angle(difference: _Floats) -> _Floats:
    """The same angle between -pi and pi."""
    wrapped: _Floats = (difference + np.pi) % (2 * np.pi) - np.pi
    return wrapped


def _to_lab(rgb: _Floats) -> _Floats:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    lab: _Floats = np.cbrt(linear @ _TO_CONES.T) @ _TO_LAB.T
    return lab


def _to_lch(rgb: _Floats) -> tuple[_Floats, _Floats, _Floats]:
    lab = _to_lab(rgb)
    return lab[..., 0], np.hypot(lab[..., 1], lab[..., 2]), np.arctan2(lab[..., 2], lab[..., 1])


def _from_lch(lightness: _Floats, chroma: _Floats, hue: _Floats) -> _Floats:
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    linear = np.clip((lab @ _FROM_LAB.T) ** 3 @ _FROM_CONES.T, 0, 1)
    rgb: _Floats = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return rgb.astype(np.float32)
