"""Pictures of every mode become three channels in [-1, 1], upright, cropped and resized; damaged ones are refused."""

import random

import numpy as np
import pytest
import torch
from PIL import Image

from fluid_core.data.picture_file import read_picture
from fluid_core.errors import SkippedItemError, UnreadableImageError


def plain(path, color=(200, 100, 50), size=(24, 24), **options):
    """A picture of one colour, saved at `path`."""
    Image.new("RGB", size, color).save(path, **options)
    return path


def values(*color):
    """A colour from 0 to 255 as values in [-1, 1]."""
    return torch.tensor(color, dtype=torch.float32) / 127.5 - 1


@pytest.mark.parametrize(
    ("mode", "color", "expected", "name"),
    [
        ("RGB", (200, 100, 50), (200, 100, 50), "p.png"),
        ("RGBA", (200, 100, 50, 255), (200, 100, 50), "p.png"),
        ("RGBA", (200, 100, 50, 0), (255, 255, 255), "p.png"),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204), "p.png"),
        ("L", 77, (77, 77, 77), "p.png"),
        ("LA", (77, 0), (255, 255, 255), "p.png"),
        ("1", 1, (255, 255, 255), "p.png"),
        ("I;16", 65535, (255, 255, 255), "p.png"),
        ("I;16", 25700, (100, 100, 100), "p.png"),
        ("I", 40, (40, 40, 40), "p.tiff"),
        ("CMYK", (0, 255, 255, 0), (255, 0, 0), "p.tiff"),
    ],
)
def test_every_mode_becomes_rgb(tmp_path, mode, color, expected, name):
    """Transparent parts show white, greys are repeated, 16 bits are scaled to the full range."""
    Image.new(mode, (10, 10), color).save(tmp_path / name)
    picture = read_picture(tmp_path / name, (4, 4))
    assert picture.dtype == torch.float32
    torch.testing.assert_close(picture, values(*expected)[:, None, None].expand(3, 4, 4), atol=0.004, rtol=0)


def test_palettes_with_and_without_transparency(tmp_path):
    """The colours of the palette, and white where its transparent entry stands."""
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([0, 0, 0, 10, 200, 30])
    picture.save(tmp_path / "opaque.png")
    picture.save(tmp_path / "clear.gif", transparency=1)
    torch.testing.assert_close(read_picture(tmp_path / "opaque.png", (2, 2))[:, 0, 0], values(10, 200, 30))
    torch.testing.assert_close(read_picture(tmp_path / "clear.gif", (2, 2))[:, 0, 0], values(255, 255, 255))


def test_floating_point_pictures_are_refused_with_advice(tmp_path):
    """Their range is anybody's guess."""
    Image.new("F", (4, 4), 0.5).save(tmp_path / "float.tiff")
    with pytest.raises(UnreadableImageError, match=r"float\.tiff.*save it with 8 or 16 bits"):
        read_picture(tmp_path / "float.tiff", (4, 4))


@pytest.mark.parametrize(("orientation", "corner"), [(1, (0, 0)), (3, (1, 1)), (6, (0, 1)), (8, (1, 0)), (2, (0, 1))])
def test_pictures_are_turned_as_their_camera_says(tmp_path, orientation, corner):
    """The dark corner, stored at the top left, is shown where the EXIF orientation puts it (row, column)."""
    picture = Image.new("RGB", (32, 32), "white")
    picture.paste("black", (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, options in (("p.png", {}), ("p.jpg", {"quality": 95})):
        picture.save(tmp_path / name, exif=exif, **options)
        shown = read_picture(tmp_path / name, (2, 2)).mean(dim=0)
        assert divmod(int(shown.argmin()), 2) == corner


def stripes(path, size=(30, 10)):
    """Red, green and blue in three equal parts side by side."""
    picture = Image.new("RGB", size, "red")
    picture.paste((0, 255, 0), (size[0] // 3, 0, 2 * size[0] // 3, size[1]))
    picture.paste((0, 0, 255), (2 * size[0] // 3, 0, size[0], size[1]))
    picture.save(path)
    return path


def test_the_middle_is_cut_out_or_all_is_squeezed(tmp_path):
    """A square cut of three stripes is the middle one; without cropping all three are there; mirrored, in reverse."""
    path = stripes(tmp_path / "stripes.png")
    torch.testing.assert_close(
        read_picture(path, (9, 9)), values(0, 255, 0)[:, None, None].expand(3, 9, 9), atol=0.03, rtol=0
    )
    squeezed = read_picture(path, (9, 9), crop_at=None)
    torch.testing.assert_close(squeezed[:, 4, [0, 4, 8]], torch.eye(3) * 2 - 1, atol=0.02, rtol=0)
    mirrored = read_picture(path, (9, 9), crop_at=None, mirrored=True)
    assert torch.equal(mirrored, squeezed.flip(-1))
    wide = read_picture(path, (4, 12))
    torch.testing.assert_close(wide[:, 2, [1, 6, 10]], torch.eye(3) * 2 - 1, atol=0.02, rtol=0)


def test_any_size_becomes_any_size(tmp_path):
    """From one pixel to hundreds, including aspects whose crop falls on a border only up to rounding."""
    chance = random.Random(0)
    for _ in range(60):
        size = (chance.randint(1, 300), chance.randint(1, 300))
        wanted = (chance.randint(1, 60), chance.randint(1, 60))
        picture = read_picture(plain(tmp_path / "p.bmp", size=size), wanted)
        torch.testing.assert_close(picture, values(200, 100, 50)[:, None, None].expand(3, *wanted), atol=0.01, rtol=0)
    for height, width in ((33, 47), (17, 31), (48, 64)):
        for size in ((301, 7), (419, 293), (77, 101), (149, 211)):
            assert read_picture(plain(tmp_path / "p.bmp", size=size), (height, width)).shape == (3, height, width)


def test_large_photographs_are_reduced_faithfully(tmp_path):
    """A JPEG decoded at reduced size looks as one decoded whole."""
    gradient = np.linspace(0, 255, 1600)[None, :, None] * np.array([1.0, 0.5, 0.2])
    photograph = Image.fromarray(np.repeat(gradient, 1200, axis=0).astype(np.uint8))
    photograph.save(tmp_path / "p.jpg", quality=95)
    photograph.save(tmp_path / "p.png")
    reduced, whole = read_picture(tmp_path / "p.jpg", (32, 32)), read_picture(tmp_path / "p.png", (32, 32))
    torch.testing.assert_close(reduced, whole, atol=0.03, rtol=0)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_files_are_refused_and_never_crash(tmp_path):
    """Whatever bytes are flipped or missing, a picture is read or an error names the file: also for a giant size."""
    chance = random.Random(1)
    pixels = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    refusals = []
    for name in ("p.png", "p.jpg", "p.gif", "p.webp", "p.tiff", "p.bmp"):
        Image.fromarray(pixels).save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        for _ in range(60):
            damaged = bytearray(whole)
            for _ in range(chance.randint(1, 6)):
                damaged[chance.randrange(min(len(whole), 200))] = chance.randrange(256)
            (tmp_path / name).write_bytes(damaged[: chance.choice([len(damaged), chance.randrange(len(damaged))])])
            try:
                picture = read_picture(tmp_path / name, (8, 8))
            except SkippedItemError as error:
                refusals.append(str(error))
            else:
                assert bool(torch.isfinite(picture).all())
                assert float(picture.abs().max()) <= 1
    assert len(refusals) > 60
    assert all(str(tmp_path / "p.") in refusal for refusal in refusals)


@pytest.mark.parametrize(
    ("content", "problem"), [(None, "No such file"), (b"", "cannot identify"), (b"text", "cannot")]
)
def test_files_that_are_no_pictures(tmp_path, content, problem):
    """Missing, empty and other files are refused by name."""
    if content is not None:
        (tmp_path / "p.png").write_bytes(content)
    with pytest.raises(UnreadableImageError, match=problem) as raised:
        read_picture(tmp_path / "p.png", (4, 4))
    assert str(tmp_path / "p.png") in str(raised.value)
