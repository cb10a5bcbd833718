"""Packed linear layers are linear layers."""

import pytest
import torch
from torch.nn import functional

from fluid_core import packed_linear
from fluid_core.packed_linear import PackedLinear

LARGE = (768, 512)
SMALL = (14, 21)


@pytest.mark.parametrize("shape", [(3, 0), (1,), (3,), (4,), (2, 5), (7, 1, 9), (64,), (200,)])
@pytest.mark.parametrize("size", [LARGE, SMALL])
def test_is_a_linear_layer(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    """Any number of rows, in any number of dimensions, none included."""
    torch.manual_seed(0)
    weight, bias, x = torch.randn(size), torch.randn(size[0]), torch.randn(*shape, size[1])
    found = PackedLinear(weight, bias)(x)
    torch.testing.assert_close(found, functional.linear(x, weight, bias), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("num_threads", [1, 2])
def test_one_layout_serves_every_number_of_rows(num_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's packed products are those of the plain layer, so that none falls back to it."""
    if not packed_linear._has_packed_products():
        pytest.skip("torch was built without packed products for this processor")
    monkeypatch.setattr(packed_linear, "_trusted", {})
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        layer = PackedLinear(torch.randn(LARGE), torch.randn(LARGE[0]))
        for num_rows in (1, 4, 5, 17, 64, 257):
            layer(torch.randn(num_rows, LARGE[1]))
    finally:
        torch.set_num_threads(before)
    assert packed_linear._trusted == {(num_rows, *LARGE): True for num_rows in (4, 5, 17, 64, 257)}


def test_a_layout_that_does_not_fit_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """If packed products are not those of the plain layer, the plain layer answers, then and later."""
    weight, bias, x = torch.randn(LARGE), torch.randn(LARGE[0]), torch.randn(6, LARGE[1])
    layer = PackedLinear(weight, bias)
    layer._packed = weight
    monkeypatch.setattr(packed_linear, "_trusted", {})
    monkeypatch.setattr(torch.ops.mkl, "_mkl_linear", lambda x, *_: torch.zeros(len(x), LARGE[0]), raising=False)
    for _ in range(2):
        torch.testing.assert_close(layer(x), functional.linear(x, weight, bias))
    assert packed_linear._trusted == {(6, *LARGE): False}


def test_without_the_library_it_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere nothing is packed, and nothing differs."""
    monkeypatch.setattr(packed_linear, "_has_packed_products", lambda: False)
    weight, bias, x = torch.randn(LARGE), torch.randn(LARGE[0]), torch.randn(6, LARGE[1])
    assert torch.equal(PackedLinear(weight, bias)(x), functional.linear(x, weight, bias))
