"""Folders of pictures with captions, in the layout of Hugging Face's `imagefolder`."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fluid_core.data.image_folder import ImageFolderDataset, build_image_folder
from fluid_core.data.options import ImageFolderOptions
from fluid_core.errors import ConfigurationError, DataError, UnreadableImageError
from fluid_core.exchange import DatasetContext


def write_metadata(folder, rows):
    """Write rows (dicts, or raw text) as metadata.jsonl."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")


def load(folder, split="train", size=(16, 16), **options) -> ImageFolderDataset:
    """Build the data set, without a validation split unless asked for."""
    options = ImageFolderOptions(path=str(folder), **{"validation_fraction": 0.0, **options})
    return build_image_folder(options, DatasetContext(image_size=size, split=split))


@pytest.fixture
def folder(tmp_path):
    """Ten plain pictures in two subfolders."""
    rows = []
    for index in range(10):
        name = f"{'ab'[index % 2]}/{index}.png"
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (20, 20), (25 * index, 0, 255)).save(tmp_path / name)
        rows.append({"file_name": name, "text": f"picture {index}", "caption": f"number {index}"})
    write_metadata(tmp_path, rows)
    return tmp_path


def test_pictures_and_captions(folder):
    """Values are in [-1, 1], captions come from the chosen column, items stay the same."""
    data = load(folder)
    assert len(data) == 10
    item = data[2]
    assert item.caption == "picture 2"
    assert item.image.shape == (3, 16, 16)
    torch.testing.assert_close(item.image[:, 8, 8], torch.tensor([50 / 127.5 - 1, -1.0, 1.0]))
    assert load(folder, caption_column="caption")[2].caption == "number 2"
    with pytest.raises(IndexError):
        data[10]


def test_splits_are_disjoint_and_complete(folder):
    """Every picture is in one split, the same one every time."""
    train = load(folder, validation_fraction=0.4)
    validation = load(folder, "validation", validation_fraction=0.4)
    captions = [[data[i].caption for i in range(len(data))] for data in (train, validation)]
    assert not set(captions[0]) & set(captions[1])
    assert len(captions[0]) + len(captions[1]) == 10
    assert captions[1]
    with pytest.raises(ConfigurationError, match="validation_fraction is 0"):
        load(folder, "validation")


def test_several_captions_and_mirrored_copies_are_items(tmp_path):
    """A list of captions gives an item each; mirrored copies double them, left and right swapped."""
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[:, :4] = 255
    Image.fromarray(pixels).save(tmp_path / "half.png")
    write_metadata(tmp_path, [{"file_name": "half.png", "text": ["one", "two"]}])
    assert sorted(load(tmp_path)[i].caption for i in range(2)) == ["one", "two"]
    data = load(tmp_path, size=(8, 8), horizontal_flip=True)
    assert len(data) == 4
    lefts = [bool(data[i].image[0, 0, 0] > 0) for i in range(4)]
    assert sorted(lefts) == [False, False, True, True]


def test_every_kind_of_picture_is_read(tmp_path):
    """Transparent, palette, grey, 16-bit and turned pictures become what a person sees."""
    Image.new("RGBA", (9, 9), (255, 0, 0, 0)).save(tmp_path / "transparent.png")
    Image.new("L", (9, 9), 255).save(tmp_path / "grey.png")
    Image.new("RGB", (9, 9), (0, 255, 0)).convert("P").save(tmp_path / "palette.png")
    Image.fromarray(np.full((9, 9), 65535, dtype=np.uint16)).save(tmp_path / "deep.png")
    turned = Image.new("RGB", (16, 8), (0, 0, 0))
    turned.paste((255, 255, 255), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    turned.save(tmp_path / "turned.png", exif=exif)
    names = ["transparent", "grey", "palette", "deep", "turned"]
    write_metadata(tmp_path, [{"file_name": f"{name}.png", "text": name} for name in names])
    data = load(tmp_path, size=(8, 8), center_crop=False)
    images = {data[i].caption: data[i].image for i in range(len(data))}
    for name in ("transparent", "grey", "deep"):
        torch.testing.assert_close(images[name], torch.ones(3, 8, 8), atol=0.01, rtol=0)
    assert images["palette"][1].min() > 0.9
    assert images["palette"][0].max() < -0.9
    # What was left is on top once turned.
    assert images["turned"][:, 0].min() > 0.9
    assert images["turned"][:, -1].max() < -0.9


def test_the_middle_is_kept_or_everything(tmp_path):
    """A wide picture loses its sides by default; stretched, it keeps them."""
    wide = Image.new("RGB", (30, 10), (255, 0, 0))
    wide.paste((0, 0, 255), (10, 0, 20, 10))
    wide.save(tmp_path / "wide.png")
    write_metadata(tmp_path, [{"file_name": "wide.png", "text": "a flag"}])
    cropped = load(tmp_path, size=(10, 10))[0].image
    assert cropped[2].min() > 0.8
    stretched = load(tmp_path, size=(10, 10), center_crop=False)[0].image
    assert stretched[0, :, 0].min() > 0.8
    assert stretched[2, :, 5].min() > 0.8


def test_a_corrupt_picture_is_an_unreadable_image(folder):
    """A truncated or foreign file is reported by name; the others are still there."""
    (folder / "a/0.png").write_bytes((folder / "a/0.png").read_bytes()[:40])
    (folder / "b/1.png").write_text("no picture at all")
    data = load(folder)
    for index, name in ((0, "0.png"), (1, "1.png")):
        with pytest.raises(UnreadableImageError, match=name):
            data[index]
    assert data[2].caption == "picture 2"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["{not json"], r"line 1: not valid JSON"),
        ([{"file_name": "a/0.png", "text": "x"}, "[1]"], r"line 2: expected a JSON object, found list"),
        ([{"file_name": "a/0.png"}], r"line 1: expected a column 'text', found file_name; set the option"),
        ([{"text": "x"}], r"expected a column 'file_name', found text"),
        ([{"file_name": "a/77.png", "text": "x"}], r"the picture 'a/77.png' does not exist"),
        ([{"file_name": "../secret.png", "text": "x"}], r"lies outside the folder"),
        ([{"file_name": "a/0.png", "text": "  "}], r"the caption of 'a/0.png' is empty"),
        ([{"file_name": "a/0.png", "text": 3}], r"must be a text, found 3"),
        ([], r"found an empty file"),
    ],
)
def test_bad_metadata_is_explained(folder, rows, message):
    """Each mistake in metadata.jsonl is named with its line."""
    write_metadata(folder, rows)
    with pytest.raises(DataError, match=message):
        load(folder)


def test_missing_folders_and_metadata_are_explained(tmp_path):
    """A folder that is not there, or has no captions, says what was expected."""
    with pytest.raises(DataError, match="Expected a folder of pictures"):
        load(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"Expected a file metadata\.jsonl"):
        load(tmp_path)
