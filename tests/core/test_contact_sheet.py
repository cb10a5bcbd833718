"""Contact sheets: every picture is there, unsmoothed, in its own proportions, with its label and mark."""

import numpy as np
import pytest
from PIL import Image

from fluid_core.contact_sheet import contact_sheet, save_image
from fluid_core.errors import InvalidRequestError, OutputError

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def plain(colour, size=(8, 8)):
    """A picture of one colour."""
    return Image.new("RGB", size, colour)


def where(sheet, colour):
    """Left, top, right and bottom of the pixels of a colour."""
    rows, columns = np.nonzero((np.asarray(sheet) == colour).all(axis=2))
    return int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1


def test_pictures_stand_in_rows_at_the_size_of_a_tile():
    """Three pictures in two columns: the second right of the first, the third below it, each 40 pixels large."""
    sheet = contact_sheet([plain(RED), plain(GREEN), plain(BLUE)], ["a", "b", "c"], num_columns=2, tile_size=40)
    first, second, third = (where(sheet, colour) for colour in (RED, GREEN, BLUE))
    assert all((right - left, bottom - top) == (40, 40) for left, top, right, bottom in (first, second, third))
    assert (first[1], first[0]) == (second[1], third[0])
    assert second[0] > first[2]
    assert third[1] > first[3]


def test_small_pictures_are_enlarged_without_smoothing():
    """A checkerboard of two colours stays one of two colours."""
    board = Image.fromarray(np.indices((8, 8)).sum(axis=0).astype(np.uint8) % 2 * 255).convert("RGB")
    sheet = np.asarray(contact_sheet([board], [""], tile_size=80))
    tile = sheet[14:94, 14:94]
    assert set(np.unique(tile)) == {0, 255}
    assert np.array_equal(tile, np.asarray(board).repeat(10, axis=0).repeat(10, axis=1))


def test_pictures_keep_their_proportions():
    """A picture twice as wide as high fills a tile from side to side, and half of its height."""
    left, top, right, bottom = where(contact_sheet([plain(RED, (32, 16))], ["wide"], tile_size=64), RED)
    assert (right - left, bottom - top) == (64, 32)
    assert (left, top) == (14, 14 + 16)


def test_labels_titles_and_marks_are_drawn():
    """A label and a title change the sheet; a mark is green for right and red for wrong."""
    bare = contact_sheet([plain(BLUE)], [""])
    labelled = contact_sheet([plain(BLUE)], ["a blue picture"])
    titled = contact_sheet([plain(BLUE)], [""], title="Title")
    assert bare.size == labelled.size
    assert not np.array_equal(np.asarray(bare), np.asarray(labelled))
    assert titled.height > bare.height
    marked = contact_sheet([plain(BLUE)] * 2, ["right", "wrong"], marks=[True, False])
    assert where(marked, (62, 160, 85))[2] < where(marked, (205, 70, 60))[0]


def test_long_labels_wrap_and_make_room():
    """A label of many words makes the sheet higher, not wider."""
    short, long = (contact_sheet([plain(RED)], [label]) for label in ("short", "many words " * 12))
    assert long.width == short.width
    assert long.height > short.height + 30


def test_labels_must_be_as_many_as_pictures():
    """No pictures at all, or one label too few, are refused."""
    for pictures, labels in (([], []), ([plain(RED)], ["a", "b"])):
        with pytest.raises(InvalidRequestError, match=f"{len(pictures)} pictures and {len(labels)} labels"):
            contact_sheet(pictures, labels)


def test_images_are_saved_as_png(tmp_path):
    """Pixels come back as they were, in folders made as needed; where none can be made an error says so."""
    save_image(plain(RED, (3, 5)), tmp_path / "new" / "x.png")
    with Image.open(tmp_path / "new" / "x.png") as opened:
        assert opened.format == "PNG"
        assert np.array_equal(np.asarray(opened), np.asarray(plain(RED, (3, 5))))
    with pytest.raises(OutputError, match="can not be written"):
        save_image(plain(RED), tmp_path / "new" / "x.png" / "y.png")
