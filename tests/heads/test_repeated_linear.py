"""The denoiser's linear layers are linear layers, whichever way their products are written."""

import pytest
import torch
from torch.nn import functional

from fluid_heads.denoising.repeated_linear import RepeatedLinear

NUM_ROWS = [0, 1, 3, 4, 14, 15, 28, 29, 48, 49, 130]
"""Both ends of every way to multiply."""


@pytest.mark.parametrize("num_rows", NUM_ROWS)
@pytest.mark.parametrize("size", [(768, 512), (700, 512), (12, 21)], ids=["large", "uneven", "small"])
def test_is_a_linear_layer(num_rows: int, size: tuple[int, int]) -> None:
    """For any number of rows, lying as rows or as columns, and weights that can not be cut into strips or are small."""
    torch.manual_seed(0)
    weight, bias, x = torch.randn(size), torch.randn(size[0]), torch.randn(num_rows, size[1])
    layer = RepeatedLinear(weight, bias)
    expected = functional.linear(x, weight, bias)
    torch.testing.assert_close(layer(x), expected, atol=2e-4, rtol=1e-4)
    torch.testing.assert_close(layer(x.t().contiguous().t()), expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("num_rows", NUM_ROWS)
def test_one_layer_takes_what_another_gives(num_rows: int) -> None:
    """Two layers one after the other, with an activation in place between them, as in the denoiser's blocks."""
    torch.manual_seed(0)
    first, second = torch.randn(2, 512, 512) / 512**0.5
    bias, x = torch.randn(512), torch.randn(num_rows, 512)
    hidden = functional.silu(RepeatedLinear(first, bias)(x), inplace=True)
    found = RepeatedLinear(second, bias)(hidden)
    expected = functional.linear(functional.silu(functional.linear(x, first, bias)), second, bias)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_x_is_left_alone() -> None:
    """Products write to memory of their own."""
    torch.manual_seed(0)
    layer = RepeatedLinear(torch.randn(512, 512), torch.randn(512))
    for num_rows in NUM_ROWS:
        x = torch.randn(num_rows, 512)
        before = x.clone()
        layer(x).zero_()
        assert torch.equal(x, before)
