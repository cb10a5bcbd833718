"""Linear layers for inference on a CPU in float32, with weights in the layout that the math library reads fastest.

A plain product of a few rows and a large weight spends much of its time on bringing the weight into that layout, at
every call. Kept that way, products of 4 to 16 rows took two thirds to nine tenths of their time on two cores, larger
ones up to a fifth less; fewer rows are bound by reading the weight once, in whatever layout.
"""

import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_FEWEST_ROWS = 4
_ROWS_WHEN_PACKED = 64
_SMALLEST_WEIGHT = 1 << 18
"""Numbers in a weight; smaller ones stay in a core's cache, where the layout makes no difference."""


class PackedLinear:
    """`x @ weight.T + bias` with weight and bias as they are now: they must not change while this is in use.

    Where the math library has no packed products, on processors other than x86, or where they gain nothing, this is a
    plain linear layer. A packed weight takes its own size in memory once more.
    """

    def __init__(self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, "outputs"]) -> None:
        self._weight = weight.detach()
        self._bias = bias.detach()
        large = self._weight.numel() >= _SMALLEST_WEIGHT
        self._packed = (
            torch.ops.mkl._mkl_reorder_linear_weight(self._weight, 1) if large and _has_packed_products() else None
        )

    def __call__(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        """The layer's output for any number of rows."""
        num_rows = math.prod(x.shape[:-1])
        if self._packed is None or num_rows < _FEWEST_ROWS:
            return functional.linear(x, self._weight, self._bias)
        product: Tensor = torch.ops.mkl._mkl_linear(x, self._packed, self._weight, self._bias, num_rows)
        shape = (num_rows, *self._weight.shape)
        if shape not in _trusted:
            plain = functional.linear(x, self._weight, self._bias)
            _trusted[shape] = torch.allclose(product, plain, rtol=1e-3, atol=1e-3, equal_nan=True)
        return product if _trusted[shape] else functional.linear(x, self._weight, self._bias)


_trusted: dict[tuple[int, int, int], bool] = {}
"""Whether the packed product was the plain one when rows, outputs and inputs were first so many. The library promises
the layout for one number of rows; that it is the same for all of them is so in the versions known to us."""


@cache
def _has_packed_products() -> bool:
    return torch._C.has_mkl and hasattr(torch.ops.mkl, "_mkl_linear")
