"""The plain colours behind emoji, each with the words for it."""

from types import MappingProxyType

import numpy as np
import numpy.typing as npt

BACKGROUNDS = MappingProxyType(
    {
        "white": (252, 252, 252),
        "cream": (252, 244, 222),
        "pale pink": (252, 226, 232),
        "pale blue": (216, 234, 250),
        "pale green": (220, 242, 220),
        "lavender": (232, 224, 248),
        "light gray": (224, 226, 230),
        "dark blue": (30, 42, 84),
        "dark green": (24, 66, 54),
    }
)
"""Red, green and blue from 0 to 255."""

PALE_BACKGROUNDS = tuple(name for name in BACKGROUNDS if not name.startswith("dark"))
"""Those every colour of the scenes stands out from."""

# Squared distance in red, green and blue below which a drawing would be lost before its background.
_LEAST_DISTANCE = 95.0**2


def clear_backgrounds(mean_color: tuple[float, float, float]) -> tuple[str, ...]:
    """The backgrounds before which a drawing of this average colour stands out; all of them if none is far enough."""
    clear = tuple(
        name
        for name, color in BACKGROUNDS.items()
        if sum((one - other) ** 2 for one, other in zip(color, mean_color, strict=True)) > _LEAST_DISTANCE
    )
    return clear or tuple(BACKGROUNDS)


def plain(color: tuple[int, int, int], height: int, width: int) -> npt.NDArray[np.float32]:
    """A picture (3, height, width) of one colour, with values in [-1, 1]."""
    picture = np.empty((3, height, width), dtype=np.float32)
    picture[:] = (np.array(color, dtype=np.float32) / 127.5 - 1).reshape(3, 1, 1)
    return picture
