"""Pixels for distances: crop and filter as named, and nothing that nobody named."""

import numpy as np
import pytest
import torch
from PIL import Image

from fluid_core.errors import DataError, UnreadableImageError
from fluid_core.evaluation.image_preparation import ImagePreparation, picture_files
from fluid_core.evaluation.picture_sources import files_fingerprint, folder_pictures


@pytest.fixture
def photo(tmp_path):
    """A picture of 71 x 40 pixels that differ everywhere."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 71, 3), dtype=np.uint8)
    path = tmp_path / "photo.png"
    Image.fromarray(noise).save(path)
    return path


def bytes_of(image):
    """What a tensor in [-1, 1] is in bytes, height first."""
    return ((image + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", ["lanczos", "bicubic", "bilinear", "box", "nearest"])
def test_centre_crop_and_resize_are_those_of_pillow(photo, name):
    """The short side is kept, 15 columns go on the left and 16 on the right, and one filter is applied."""
    found = ImagePreparation(image_size=(32, 32), crop="center", filter=name).prepared(photo)
    with Image.open(photo) as picture:
        expected = picture.crop((15, 0, 55, 40)).resize((32, 32), getattr(Image.Resampling, name.upper()))
    assert np.array_equal(bytes_of(found), np.asarray(expected))
    assert found.dtype == torch.float32


def test_without_crop_pictures_are_stretched(photo):
    """All of the picture is there."""
    found = ImagePreparation(image_size=(32, 64), crop="none", filter="bicubic").prepared(photo)
    with Image.open(photo) as picture:
        expected = picture.resize((64, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(bytes_of(found), np.asarray(expected))


def test_crops_have_the_wanted_aspect(photo):
    """Of a wide picture the sides go, of a high one top and bottom, whichever aspect is wanted."""
    with Image.open(photo) as picture:
        pixels = np.asarray(picture)
    wide = ImagePreparation(image_size=(20, 40), filter="nearest").prepared(photo)
    assert wide.shape == (3, 20, 40)
    # 71 x 35 pixels remain of the height: two rows go above.
    exact = ImagePreparation(image_size=(35, 71)).prepared(photo)
    assert np.array_equal(bytes_of(exact), pixels[2:37])


def test_a_picture_of_the_wanted_size_stays_as_it_is(photo):
    """No filter touches it: drawn pictures are compared as they are."""
    found = ImagePreparation(image_size=(40, 71)).prepared(photo)
    with Image.open(photo) as picture:
        assert np.array_equal(bytes_of(found), np.asarray(picture))
    assert found.min() == -1
    assert found.max() == 1


def test_large_jpegs_are_decoded_whole_and_not_turned(tmp_path):
    """The decoder's short cut to smaller pictures, and EXIF data, would give other pixels than the protocols."""
    noise = np.random.default_rng(0).integers(0, 256, (256, 320), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "photo.jpg"
    Image.fromarray(noise).save(path, exif=exif, quality=95)
    found = ImagePreparation(image_size=(32, 32)).prepared(path)
    with Image.open(path) as picture:
        whole = picture.convert("RGB").crop((32, 0, 288, 256)).resize((32, 32), Image.Resampling.LANCZOS)
    assert np.array_equal(bytes_of(found), np.asarray(whole))


def test_files_that_are_no_pictures_are_named(tmp_path):
    """The message says which file can not be read."""
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableImageError, match=r"broken\.png"):
        ImagePreparation(image_size=(32, 32)).prepared(tmp_path / "broken.png")
    with pytest.raises(UnreadableImageError, match=r"missing\.png"):
        ImagePreparation(image_size=(32, 32)).prepared(tmp_path / "missing.png")


def test_pictures_of_a_folder_are_chosen_by_seed_and_name(tmp_path):
    """The choice is the same wherever the folder lies, nested in larger ones, and other for another seed."""
    for index in range(20):
        Image.new("RGB", (40, 40), (index, 0, 0)).save(tmp_path / f"{index:02d}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    preparation = ImagePreparation(image_size=(32, 32))
    everything = folder_pictures(tmp_path, preparation)
    assert [file.name for file in everything.files] == [f"{index:02d}.png" for index in range(20)]
    five, ten, other = (
        [file.name for file in folder_pictures(tmp_path, preparation, num_images=count, seed=seed).files]
        for count, seed in ((5, 0), (10, 0), (5, 1))
    )
    assert set(five) < set(ten)
    assert five == sorted(five) != other
    assert everything.as_json()["file_kinds"] == {"png": 20}
    named = folder_pictures(tmp_path, preparation, only=["07.png", "03.png", "07.png"])
    assert [file.name for file in named.files] == ["03.png", "07.png"]
    read = named.read(range(2))
    assert read.numbers.tolist() == [0, 1]
    assert read.images.shape == (2, 3, 32, 32)


def test_folders_that_lack_something_say_what(tmp_path):
    """No folder, no pictures, too few of them, or not those that are wanted."""
    preparation = ImagePreparation(image_size=(32, 32))
    (tmp_path / "empty").mkdir()
    for folder, others, message in (
        ("missing", {}, "found none"),
        ("empty", {}, "Expected pictures"),
        ("empty", {"num_images": 3}, "at least 3"),
        ("empty", {"only": ["a.jpg", "b.jpg"]}, r"a\.jpg .*2 of 2 are missing"),
    ):
        with pytest.raises(DataError, match=message):
            folder_pictures(tmp_path / folder, preparation, **others)


def test_a_fingerprint_changes_with_the_files(tmp_path, photo):
    """What was measured of a file is not reused after the file has changed."""
    before = files_fingerprint(picture_files(tmp_path))
    assert before == files_fingerprint([photo])
    Image.new("RGB", (9, 9)).save(photo)
    assert files_fingerprint([photo]) != before
