"""Cutting images into patches and back."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fluid_core.errors import InvalidRequestError
from fluid_core.token_space import Grid
from fluid_tokenizers.patching import from_patches, to_patches


def test_values_are_ordered_by_channel_row_column():
    """The patch at grid row i and column j holds exactly its square, channel by channel."""
    images = torch.arange(2 * 3 * 8 * 12).view(2, 3, 8, 12)
    patches = to_patches(images, 4)
    assert patches.shape == (2, 6, 48)
    for i in range(2):
        for j in range(3):
            square = images[:, :, 4 * i : 4 * i + 4, 4 * j : 4 * j + 4]
            assert torch.equal(patches[:, 3 * i + j], square.flatten(1))


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4))
def test_the_inverse_is_exact(batch: int, channels: int, height: int, width: int, patch_size: int):
    """Any grid, also of latents with other than three channels, comes back bit for bit."""
    images = torch.randn(
        batch, channels, height * patch_size, width * patch_size, generator=torch.Generator().manual_seed(0)
    )
    patches = to_patches(images, patch_size)
    assert patches.shape == (batch, height * width, channels * patch_size**2)
    assert torch.equal(from_patches(patches, Grid(height=height, width=width), patch_size), images)


def test_sizes_that_do_not_fit_are_refused():
    """Neither half patches nor patches of another grid are accepted."""
    with pytest.raises(InvalidRequestError, match="multiples of the patch size 4, found 8 x 10"):
        to_patches(torch.zeros(1, 3, 8, 10), 4)
    with pytest.raises(InvalidRequestError, match=r"Expected 4 patches \(2 x 2\)"):
        from_patches(torch.zeros(1, 6, 48), Grid(height=2, width=2), 4)
    with pytest.raises(InvalidRequestError, match="a multiple of 16 values each, found 4 patches with 47"):
        from_patches(torch.zeros(1, 4, 47), Grid(height=2, width=2), 4)
