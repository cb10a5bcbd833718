"""Pictures and masks of every kind and size."""

import numpy as np
import pytest
import torch
from PIL import Image

from fluid_core.editing.given_pictures import as_masks, as_pictures
from fluid_core.editing.picture_files import open_picture
from fluid_core.editing.picture_fitting import fitted
from fluid_core.errors import InvalidRequestError, UnreadableImageError


def test_a_picture_is_the_same_however_it_is_given(noise_of):
    """PIL images, arrays of bytes or numbers, tensors; alone, in lists and in batches."""
    image = noise_of(5, 4, seed=1)
    array = np.array(image)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    expected = tensor.float() / 255
    for given in (image, array, tensor, array / 255, (array / 255).astype(np.float32), tensor.float() / 255, [image]):
        (picture,) = as_pictures(given)
        torch.testing.assert_close(picture, expected, atol=1e-7, rtol=0)
    for given in ([image, array], np.stack([array, array]), torch.stack([tensor, tensor]), [tensor, array / 255]):
        assert len(as_pictures(given)) == 2
    assert torch.equal((as_pictures(image)[0] * 255).round().to(torch.uint8), tensor)


def test_pil_images_are_read_as_training_pictures_are():
    """Greys, palettes and transparency (laid on white) become red, green and blue; EXIF turns the picture."""
    grey = Image.new("L", (2, 3), 51)
    assert torch.equal(as_pictures(grey)[0], torch.full((3, 3, 2), 0.2))
    clear = Image.new("RGBA", (2, 3), (0, 0, 0, 0))
    assert torch.equal(as_pictures(clear)[0], torch.ones(3, 3, 2))
    turned = Image.new("RGB", (2, 3))
    turned.getexif()[0x0112] = 6
    assert as_pictures(turned)[0].shape == (3, 2, 3)


def test_files_are_turned_as_their_exif_data_says(tmp_path):
    """And closed again, with all of their pixels read; missing and damaged ones are named."""
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (8, 4), (255, 0, 0)).save(path, exif=exif)
    opened = open_picture(path)
    path.unlink()
    assert opened.size == (4, 8)
    assert as_pictures(opened)[0].shape == (3, 8, 4)
    with pytest.raises(UnreadableImageError, match="found no file"):
        open_picture(path)
    path.write_bytes(b"no picture")
    with pytest.raises(UnreadableImageError, match=r"Could not read the picture .*turned\.jpg"):
        open_picture(path)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((3, 4, 4)), "height x width x 3, .* found \\(3, 4, 4\\)"),
        (torch.zeros(4, 4, 3), "3 x height x width, .* found \\(4, 4, 3\\)"),
        (torch.zeros(4, 4), "found \\(4, 4\\)"),
        (np.full((4, 4, 3), -1.0), "from 0 to 1, found values from -1 to -1"),
        (np.full((4, 4, 3), 255.0), "from 0 to 1, found values from 255 to 255"),
        (np.full((4, 4, 3), np.nan), "from 0 to 1, found values from nan"),
        (np.full((4, 4, 3), 40000, dtype=np.uint16), "from 0 to 255, found values from 40000"),
        (torch.full((3, 4, 4), 40000).to(torch.uint16), "from 0 to 255, found values from 40000"),
        (torch.full((3, 4, 4), 300), "from 0 to 255, found values from 300"),
        ("picture.png", "PIL image, an array or a tensor of numbers, found a str"),
        (np.zeros((4, 4, 3), dtype=complex), "found one of type complex128"),
        (Image.new("F", (4, 4)), "floating-point numbers of an unknown range"),
        ([], "at least one picture"),
    ],
)
def test_what_is_no_picture_is_refused(given, message):
    """With what was found."""
    unchecked = getattr(as_pictures, "__wrapped__", as_pictures)
    with pytest.raises(InvalidRequestError, match=message):
        unchecked(given)


def test_a_mask_is_the_same_however_it_is_given():
    """White, True and 1 mean the same, in one channel or three, and greys count from the middle on."""
    expected = torch.tensor([[True, False, False, False], [False, False, True, True]])
    array = expected.numpy()
    grey = np.where(array, np.uint8(128), np.uint8(127))
    for given in (
        Image.fromarray(array),
        Image.fromarray(grey),
        Image.fromarray(np.where(array, np.uint8(255), np.uint8(0))).convert("RGB"),
        Image.fromarray(grey).convert("RGBA"),
        Image.fromarray(np.where(array, np.uint16(40000), np.uint16(1000))),
        Image.fromarray(array.astype(np.uint16)),
        Image.fromarray(np.where(array, np.uint16(255), np.uint16(0))),
        Image.fromarray(np.where(array, np.int32(200), np.int32(20))),
        Image.fromarray(array.astype(np.float32)),
        array,
        expected,
        grey,
        array.astype(np.uint8),
        array.astype(np.int64),
        array.astype(np.float64) * 0.5,
        array[:, :, None],
        np.repeat(array[:, :, None], 3, axis=2),
        expected[None],
        expected[None].float(),
        expected[None].expand(3, -1, -1),
        [array],
    ):
        (mask,) = as_masks(given)
        assert torch.equal(mask, expected)
    for given in ([array, array], np.stack([array, array]), torch.stack([expected, expected])[:, None]):
        assert [mask.shape for mask in as_masks(given)] == [expected.shape] * 2
    three = torch.stack([expected, expected, ~expected])
    assert all(torch.equal(*pair) for pair in zip(as_masks(three), three, strict=True))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Image.new("RGBA", (2, 2), (255, 255, 255, 0)), "transparent pixels, which could mean either"),
        (Image.fromarray(np.full((2, 2), 7, np.float32)), "from 0 to 1, found values from 7 to 7"),
        (Image.fromarray(np.full((2, 2), 70000, np.int32)), "from 0 to 1, found values from 1.0"),
        (np.zeros(4), "height x width"),
        (np.full((4, 4), 2.0), "from 0 to 1, found values from 2 to 2"),
        (np.full((4, 4), 40000, dtype=np.uint16), "from 0 to 255, found values from 40000"),
        (np.full((4, 4), -1), "from 0 to 1, found values from -1"),
        ([], "at least one mask"),
        (None, "found a NoneType"),
    ],
)
def test_what_is_no_mask_is_refused(given, message):
    """With what was found."""
    unchecked = getattr(as_masks, "__wrapped__", as_masks)
    with pytest.raises(InvalidRequestError, match=message):
        unchecked(given)


def test_a_picture_of_the_size_is_left_alone(noise_of):
    """To the bit, but for what is masked."""
    (picture,) = as_pictures(noise_of(6, 4, seed=1))
    mask = torch.zeros(4, 6, dtype=torch.bool)
    mask[0, 0] = True
    result, drawn = fitted(picture, mask, (4, 6), "exact")
    assert torch.equal(drawn, mask)
    assert torch.equal(result[:, ~mask], picture[:, ~mask])
    torch.testing.assert_close(result[:, 0, 0], picture[:, ~mask].mean(dim=1))


@pytest.mark.parametrize("size", [(30, 20), (90, 60), (61, 40)])
def test_a_picture_of_equal_proportions_is_resized_as_data_sets_do(noise_of, size):
    """To the byte; proportions may differ by a pixel."""
    image = noise_of(*size, seed=1)
    result, drawn = fitted(as_pictures(image)[0], None, (24, 36), "exact")
    box = (0, 0, *size) if size != (61, 40) else (0.5, 0, 60.5, 40)
    expected = np.asarray(image.resize((36, 24), Image.Resampling.LANCZOS, box=box)) / 255
    assert np.abs(result.permute(1, 2, 0).numpy() - expected).max() < 1e-6
    assert not bool(drawn.any())


def test_other_proportions_are_cut_stretched_or_refused(noise_of):
    """The message names both sizes and the choices."""
    image = noise_of(40, 20, seed=1)
    (picture,) = as_pictures(image)
    with pytest.raises(InvalidRequestError, match=r"24 x 24 pixels .*found one of 40 x 20\..*'crop'.*'stretch'"):
        fitted(picture, None, (24, 24), "exact")
    for fit, box in (("crop", (10, 0, 30, 20)), ("stretch", (0, 0, 40, 20))):
        result, _ = fitted(picture, None, (24, 24), fit)
        expected = np.asarray(image.resize((24, 24), Image.Resampling.LANCZOS, box=box)) / 255
        assert np.abs(result.permute(1, 2, 0).numpy() - expected).max() < 1e-6


def test_a_mask_goes_the_way_of_its_picture(noise_of):
    """Cut and resized with it; a mask of another size than the picture is refused."""
    (picture,) = as_pictures(noise_of(80, 40, seed=1))
    mask = torch.zeros(40, 80, dtype=torch.bool)
    mask[:, 40:] = True
    _, drawn = fitted(picture, mask, (20, 20), "crop")
    assert torch.equal(drawn, torch.arange(20).expand(20, 20) >= 10)
    with pytest.raises(InvalidRequestError, match=r"picture's size, 80 x 40 pixels .* found 40 x 80"):
        fitted(picture, mask.T, (20, 20), "crop")


def test_far_from_a_mask_resizing_is_as_without_one(noise_of):
    """Exactly; and a mask may be so thin that nothing is left of it."""
    (picture,) = as_pictures(noise_of(80, 80, seed=1))
    mask = torch.zeros(80, 80, dtype=torch.bool)
    mask[:, 60:] = True
    plain, _ = fitted(picture, None, (20, 20), "exact")
    masked, drawn = fitted(picture, mask, (20, 20), "exact")
    assert torch.equal(masked[:, :, :12], plain[:, :, :12])
    assert drawn[0].nonzero().flatten().tolist() == [15, 16, 17, 18, 19]
    mask[:] = False
    mask[:, 10] = True
    assert not bool(fitted(picture, mask, (20, 20), "exact")[1].any())


def test_colours_beside_a_mask_do_not_mix_with_what_is_under_it():
    """A red picture with a blue part under the mask is all red after resizing, without a purple seam."""
    picture = torch.zeros(3, 50, 50)
    picture[0] = 1.0
    mask = torch.zeros(50, 50, dtype=torch.bool)
    mask[13:31, 7:40] = True
    picture[:, mask] = torch.tensor([0.0, 0.0, 1.0])[:, None]
    result, drawn = fitted(picture, mask, (16, 16), "exact")
    assert bool(drawn.any())
    torch.testing.assert_close(result, torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 16, 16))
