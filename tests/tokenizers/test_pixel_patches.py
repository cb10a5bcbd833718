"""Patches of pixels as continuous tokens."""

import pytest
import torch

from fluid_core.errors import ConfigurationError, InvalidRequestError
from fluid_core.keyed_random import KeyedRandom
from fluid_core.protocols import LearnsFromImages, Tokenizer
from fluid_core.token_space import ContinuousTokens, Grid
from fluid_tokenizers import PixelPatches, PixelPatchesOptions
from fluid_tokenizers.image_checks import check_images


def _encode(tokenizer: PixelPatches, images: torch.Tensor) -> torch.Tensor:
    random = KeyedRandom(torch.arange(len(images)))
    return tokenizer.tokens(tokenizer.precompute(images), random=random)


def test_it_keeps_the_contracts():
    """It is a tokenizer that learns from images, and a module without parameters."""
    tokenizer = PixelPatches(PixelPatchesOptions(image_size=24, patch_size=8))
    assert isinstance(tokenizer, Tokenizer)
    assert isinstance(tokenizer, LearnsFromImages)
    assert tokenizer.image_size == (24, 24)
    assert tokenizer.token_space == ContinuousTokens(grid=Grid(height=3, width=3), channels=192)
    assert list(tokenizer.parameters()) == []


def test_images_come_back(scenes):
    """Encoding and decoding gives the picture again: exactly before fitting, within rounding after."""
    tokenizer = PixelPatches()
    images = scenes(8, seed=0)
    assert torch.equal(tokenizer.decode(_encode(tokenizer, images)), images)
    tokenizer.fit(scenes(100, seed=1), seed=0)
    torch.testing.assert_close(tokenizer.decode(_encode(tokenizer, images)), images, rtol=0, atol=1e-6)


def test_it_is_usable_before_fitting(scenes):
    """Tokens are then the plain pixel values of the patch, in the order channel, row, column."""
    tokenizer = PixelPatches()
    assert not tokenizer.fitted
    images = scenes(2, seed=0)
    tokens = _encode(tokenizer, images)
    tokenizer.token_space.validate(tokens)
    assert tokens.shape == (2, 64, 48)
    assert torch.equal(tokens[1, 9], images[1, :, 4:8, 4:8].flatten())


def test_fitted_tokens_are_normalised_per_channel(scenes):
    """Over the images it was fitted on, each of the 48 channels has mean 0 and deviation 1."""
    tokenizer, images = PixelPatches(), scenes(300, seed=2)
    tokenizer.fit(images, seed=0)
    assert tokenizer.fitted
    channels = _encode(tokenizer, images).flatten(0, 1).double()
    torch.testing.assert_close(channels.mean(dim=0), torch.zeros(48).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(channels.std(dim=0, correction=0), torch.ones(48).double(), rtol=1e-4, atol=0)


def test_one_constant_channel_survives(scenes):
    """Pictures without blue give finite tokens that decode to no blue."""
    images = scenes(50, seed=3)
    images[:, 2] = -1
    tokenizer = PixelPatches()
    tokenizer.fit(images, seed=0)
    tokens = _encode(tokenizer, images)
    assert tokens.abs().max() < 20
    torch.testing.assert_close(tokenizer.decode(tokens), images, rtol=0, atol=1e-6)


def test_a_cache_outlives_new_statistics(scenes):
    """What `precompute` returns does not depend on the statistics; `tokens` applies them."""
    tokenizer, images = PixelPatches(), scenes(4, seed=4)
    cached = tokenizer.precompute(images)
    random = KeyedRandom(torch.arange(4))
    before = tokenizer.tokens(cached, random=random)
    tokenizer.fit(scenes(50, seed=5), seed=0)
    assert torch.equal(cached["patches"], tokenizer.precompute(images)["patches"])
    after = tokenizer.tokens(cached, random=random)
    assert not torch.equal(before, after)
    assert torch.equal(after, _encode(tokenizer, images))


def test_decoding_clamps():
    """Whatever a model draws, the picture is in [-1, 1]."""
    images = PixelPatches().decode(3 * torch.randn(2, 64, 48, generator=torch.Generator().manual_seed(0)))
    assert float(images.min()) == -1
    assert float(images.max()) == 1


def test_state_dict_brings_the_statistics(scenes):
    """A new tokenizer that loads the state is fitted and makes the same tokens."""
    tokenizer, loaded = PixelPatches(), PixelPatches()
    tokenizer.fit(scenes(50, seed=6), seed=0)
    loaded.load_state_dict(tokenizer.state_dict())
    assert loaded.fitted
    assert torch.equal(_encode(loaded, scenes(3, seed=7)), _encode(tokenizer, scenes(3, seed=7)))


def test_images_of_another_size_are_refused(scenes):
    """The message names both sizes."""
    with pytest.raises(InvalidRequestError, match=r"images of 32 x 32 pixels .*, found 48 x 48"):
        PixelPatches().precompute(scenes(1, seed=0, size=48))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 1, 32, 32), r"shape batch x 3 x 32 x 32, found shape \(2, 1, 32, 32\)"),
        (torch.zeros(3, 32, 32), r"found shape \(3, 32, 32\)"),
        (torch.zeros(0, 3, 32, 32), "empty batch"),
        (torch.zeros(1, 3, 32, 32, dtype=torch.uint8), "found torch.uint8"),
        (torch.full((1, 3, 32, 32), 255.0), r"in \[-1, 1\], found values from 255 to 255"),
        (torch.full((1, 3, 32, 32), -1.5), "found values from -1.5"),
        (torch.full((1, 3, 32, 32), float("nan")), "found values from nan"),
    ],
)
def test_unfit_images_are_refused(images: torch.Tensor, message: str):
    """Shape, type and range are checked, each with its own message."""
    with pytest.raises(InvalidRequestError, match=message):
        check_images(images, (32, 32))


def test_images_on_the_edge_of_the_range_pass():
    """Exactly -1 and 1, with a little rounding, are in range."""
    check_images(torch.tensor([-1.0, 1.0, 1.00001]).view(1, 3, 1, 1), (1, 1))


@pytest.mark.parametrize("patch_size", [3, 5, 64])
def test_patches_that_do_not_cover_the_image_are_refused(patch_size: int):
    """The options say which sizes would do."""
    with pytest.raises(ConfigurationError, match=r"divide image_size.*one of \[1, 2, 4, 8, 16, 32\]"):
        PixelPatchesOptions(image_size=32, patch_size=patch_size)


def test_sizes_must_be_positive():
    """Zero or negative pixels have no meaning."""
    for sizes in ({"image_size": 0}, {"patch_size": 0}, {"image_size": -32}, {"patch_size": -4}):
        with pytest.raises(ValueError, match="must be > 0"):
            PixelPatchesOptions(**sizes)
