"""The words and colours that scenes of shapes are made of."""

from types import MappingProxyType

SHAPES = ("circle", "square", "triangle", "cross")
"""Outlines that stay apart in a box of nine pixels."""

PLURALS = MappingProxyType({"circle": "circles", "square": "squares", "triangle": "triangles", "cross": "crosses"})

PALETTE = MappingProxyType(
    {
        "red": (222, 50, 48),
        "yellow": (250, 198, 22),
        "green": (38, 168, 76),
        "blue": (38, 98, 226),
        "purple": (152, 54, 192),
        "black": (38, 38, 44),
    }
)
"""Red, green and blue from 0 to 255. Mixed with the background, as on the edge of an outline, they stay apart too."""

COLORS = tuple(PALETTE)

BACKGROUND = (246, 246, 243)
"""The one colour behind every scene."""

RELATIONS = ("left of", "right of", "above", "below")

OPPOSITE = MappingProxyType({"left of": "right of", "right of": "left of", "above": "below", "below": "above"})

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
"""The tasks of GenEval (arXiv 2310.11513), by their names there."""

COMBINED = "combined"
"""The task of captions that join several kinds of facts, which GenEval has not."""
