"""Recolouring reaches the palette and leaves the rest alone."""

import numpy as np
import pytest
from fluid_emoji.recoloring import COLORS, PALETTE, nearest_color, recolored

BODY, GREY, LEAF = (200, 60, 40), (120, 120, 120), (70, 150, 50)


@pytest.fixture
def drawing():
    """A red body with a darker and a lighter part, a grey stripe and a green leaf, before nothing."""
    pixels = np.zeros((16, 16, 4), dtype=np.uint8)
    pixels[2:14, 2:14] = (*BODY, 255)
    pixels[2:4, 2:14] = (140, 42, 28, 255)
    pixels[12:14, 2:14] = (230, 120, 105, 255)
    pixels[7:9, 2:14] = (*GREY, 255)
    pixels[5:7, 2:5] = (*LEAF, 255)
    return pixels


@pytest.mark.parametrize("color", COLORS)
def test_the_body_gets_the_colour_of_the_palette(drawing, color):
    """The typical pixel is the palette's colour to a few steps of 255; greys, other hues and alpha stay."""
    before = drawing.copy()
    painted = recolored(drawing, color)
    assert np.abs(painted[10, 8, :3].astype(int) - PALETTE[color]).max() <= 3
    assert tuple(painted[7, 8, :3]) == GREY
    assert tuple(painted[5, 3, :3]) == LEAF
    assert np.array_equal(painted[..., 3], drawing[..., 3])
    assert np.array_equal(drawing, before)


@pytest.mark.parametrize("color", COLORS)
def test_shading_survives(drawing, color):
    """What was darker stays darker, and what was lighter lighter."""
    painted = recolored(drawing, color)[..., :3].astype(int).sum(axis=-1)
    assert painted[3, 8] < painted[10, 8] < painted[13, 8]


def test_a_grey_drawing_is_left_alone():
    """Where there is no colour, none is made up."""
    pixels = np.full((8, 8, 4), 200, dtype=np.uint8)
    assert np.array_equal(recolored(pixels, "red"), pixels)


def test_nearest_colour_names_the_palette_itself():
    """Each colour of the palette is nearest to itself."""
    assert [nearest_color(PALETTE[color]) for color in COLORS] == list(COLORS)
