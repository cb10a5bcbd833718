"""Packed linear layers are linear layers."""

import pytest
import torch
from torch.nn import functional

from fluid_core import packed_linear
from fluid_core.packed_linear import PackedLinear

LARGE = (768, 512)
SMALL = (14, 21)


@pytest.mark.parametrize("shape", [(3, 0), (1,), (3,), (4,), (2, 5), (7, 1, 9), (64,), (200,), (2, 300)])
@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_is_a_linear_layer(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    """Any number of rows, in any number of dimensions, none included."""
    torch.manual_seed(0)
    weight, bias, x = torch.randn(size), torch.randn(size[0]), torch.randn(*shape, size[1])
    found = PackedLinear(weight, bias)(x)
    torch.testing.assert_close(found, functional.linear(x, weight, bias), atol=2e-4, rtol=1e-4)


def test_one_copy_serves_every_number_of_rows() -> None:
    """A weight is packed once, when several rows first ask for it; what rows are multiplied with it changes nothing."""
    if not packed_linear._can_pack():
        pytest.skip("torch was built without packed products for this processor")
    torch.manual_seed(0)
    weight, bias = torch.randn(LARGE), torch.randn(LARGE[0])
    layer = PackedLinear(weight, bias)
    layer(torch.randn(3, LARGE[1]))
    assert layer._packed is None
    layer(torch.randn(4, LARGE[1]))
    packed = layer._packed
    for num_rows in (5, 17, 64, 257):
        x = torch.randn(num_rows, LARGE[1])
        torch.testing.assert_close(layer(x), functional.linear(x, weight, bias), atol=2e-4, rtol=1e-4)
    assert layer._packed is packed is not None


def test_rows_may_lie_as_columns() -> None:
    """The memory layout of rows does not matter."""
    torch.manual_seed(0)
    weight, bias, x = torch.randn(LARGE), torch.randn(LARGE[0]), torch.randn(LARGE[1], 9).t()
    expected = functional.linear(x.contiguous(), weight, bias)
    torch.testing.assert_close(PackedLinear(weight, bias)(x), expected, atol=2e-4, rtol=1e-4)


def test_without_the_library_it_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere nothing is packed, and nothing differs."""
    monkeypatch.setattr(packed_linear, "_can_pack", lambda: False)
    weight, bias, x = torch.randn(LARGE), torch.randn(LARGE[0]), torch.randn(6, LARGE[1])
    layer = PackedLinear(weight, bias)
    assert torch.equal(layer(x), functional.linear(x, weight, bias))
    assert layer._packed is None
