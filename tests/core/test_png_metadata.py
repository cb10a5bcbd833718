"""What a PNG says about itself."""

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from fluid_core.errors import DataError, OutputError
from fluid_core.png_metadata import read_metadata, save_png

METADATA = {"prompt": "ein Käse, 猫", "seed": 2**62 + 1, "settings": {"guidance": 1.5, "steps": None}}


@pytest.fixture
def picture():
    """A picture of noise."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8))


def test_metadata_and_pixels_come_back(picture, tmp_path):
    """All values survive, the prompt is readable for other programs, and writing again gives the same bytes."""
    save_png(picture, tmp_path / "new" / "a.png", METADATA)
    assert read_metadata(tmp_path / "new" / "a.png") == METADATA
    with Image.open(tmp_path / "new" / "a.png") as read:
        assert np.array_equal(np.asarray(read), np.asarray(picture))
        assert read.text["prompt"] == METADATA["prompt"]
    save_png(picture, tmp_path / "b.png", METADATA)
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "new" / "a.png").read_bytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.png"]


def test_metadata_without_a_prompt_is_fine(picture, tmp_path):
    """Only what is there is written."""
    save_png(picture, tmp_path / "a.png", {"seed": 1})
    assert read_metadata(tmp_path / "a.png") == {"seed": 1}
    with Image.open(tmp_path / "a.png") as read:
        assert set(read.text) == {"fluid"}


def test_what_json_can_not_hold_leaves_no_file(picture, tmp_path):
    """The old file stays as it was."""
    save_png(picture, tmp_path / "a.png", {"seed": 1})
    for value, error in ((object(), TypeError), (float("nan"), ValueError)):
        with pytest.raises(error):
            save_png(picture, tmp_path / "a.png", {"seed": value})
    assert read_metadata(tmp_path / "a.png") == {"seed": 1}


def test_pictures_that_say_nothing_are_refused_clearly(picture, tmp_path):
    """A plain PNG, damaged text, another file, no file, and a place where nothing can be written."""
    picture.save(tmp_path / "plain.png")
    for name, text in (("damaged.png", "{"), ("list.png", "[]")):
        chunks = PngImagePlugin.PngInfo()
        chunks.add_text("fluid", text)
        picture.save(tmp_path / name, pnginfo=chunks)
    (tmp_path / "text.png").write_text("no picture")
    picture.save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:60])
    for name, message in (
        ("plain.png", "does not say how it was made"),
        ("damaged.png", "not valid JSON"),
        ("list.png", "expected a JSON object"),
        ("text.png", "can not be read as one"),
        ("cut.png", "can not be read as one"),
        ("none.png", "found none"),
    ):
        with pytest.raises(DataError, match=message):
            read_metadata(tmp_path / name)
    with pytest.raises(OutputError, match="can not be written"):
        save_png(picture, tmp_path / "text.png" / "a.png", {})
