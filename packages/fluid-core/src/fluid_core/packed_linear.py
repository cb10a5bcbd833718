"""Linear layers for inference on a CPU in float32, with weights in the layout that the math library reads fastest.

A plain product reads the weight as it lies for one to three rows. For more it first brings the weight into another
layout, at every call. Kept in that layout, 4 to 16 rows took a fifth to two fifths less time on two cores, some hundred
rows up to a tenth less, a thousand none.
"""

import math
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

FEWEST_PACKED_ROWS = 4
_MOST_PACKED_ROWS = 512
SMALLEST_PACKED_WEIGHT = 1 << 18
"""Numbers in a weight; smaller ones stay in a core's cache, where the layout makes no difference."""


class PackedLinear:
    """`x @ weight.T + bias` with weight and bias as they are now: they must not change while this is in use.

    Where torch was built without oneDNN, for processors other than x86, or where it gains nothing, this is a plain
    linear layer. A packed weight takes its own size in memory once more, from the first product of many rows on.
    """

    def __init__(self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, "outputs"]) -> None:
        self._weight = weight.detach()
        self._bias = bias.detach()
        self._is_plain = self._weight.numel() < SMALLEST_PACKED_WEIGHT or not _can_pack()
        self._packed: Tensor | None = None

    def __call__(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        """The layer's output for any number of rows."""
        if self._is_plain or not FEWEST_PACKED_ROWS <= math.prod(x.shape[:-1]) <= _MOST_PACKED_ROWS:
            return functional.linear(x, self._weight, self._bias)
        if self._packed is None:
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight, None)
        output: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, "none", [], "")
        return output


@cache
def _can_pack() -> bool:
    """Whether torch has the operators by which its own compiler packs weights: there are no public ones."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    return torch._C.has_mkl and torch._C._has_mkldnn and all(hasattr(torch.ops.mkldnn, name) for name in names)
