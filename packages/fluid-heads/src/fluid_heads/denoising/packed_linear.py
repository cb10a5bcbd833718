"""A linear layer whose weight is laid out for the matrix-product library, for inference on a CPU.

MKL multiplies some dozens of rows by a weight reordered for exactly that number of rows 1.1 to 1.3 times faster than by
a plain one. PyTorch exposes this to its own compiler as operators with a leading underscore, so their absence or
refusal must never matter: the layer then computes as `torch.nn.functional.linear` does.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

# Found by measuring square layers of width 1024 on two cores: with the rows as columns the library multiplies a single
# row and these batches up to 1.5 times faster than either other way, and other numbers of rows no faster.
_ROWS_AS_COLUMNS = frozenset({1, *range(5, 41)})
_FEWEST_PACKED_ROWS = 41
_MOST_PACKED_ROWS = 512


def packing_available() -> bool:
    """Whether this build of PyTorch has MKL's operators for packed weights."""
    available: bool = torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
    return available and hasattr(torch.ops.mkl, "_mkl_linear")


class PackedLinear:
    """`activation(x @ weight.T + bias)` in float32, with copies of weight and bias; the activation is SiLU or none.

    The fastest of three ways to multiply is taken, by the number of rows. A weight is reordered when its layer first
    meets a number of rows, and kept until it meets another.
    """

    def __init__(
        self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, "outputs"], *, silu: bool = False
    ) -> None:
        self._weight = weight.detach().to(torch.float32, copy=True).contiguous()
        self._bias = bias.detach().to(torch.float32, copy=True).contiguous()
        self._column_bias = self._bias[:, None]
        self._silu = silu
        self._packed: Tensor | None = None
        self._packed_rows = 0

    def __call__(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """The layer's output; for few rows it may be a transposed view."""
        num_rows = x.shape[0]
        if num_rows in _ROWS_AS_COLUMNS:
            return self._activated(torch.addmm(self._column_bias, self._weight, x.t())).t()
        if _FEWEST_PACKED_ROWS <= num_rows <= _MOST_PACKED_ROWS:
            packed = self._packed if num_rows == self._packed_rows else self._pack(num_rows)
            if packed is not None:
                return self._activated(torch.ops.mkl._mkl_linear(x, packed, self._weight, self._bias, num_rows))
        return self._activated(functional.linear(x, self._weight, self._bias))

    def _activated(self, output: Tensor) -> Tensor:
        return functional.silu(output, inplace=True) if self._silu else output

    def _pack(self, num_rows: int) -> Tensor | None:
        """The weight reordered for a number of rows, None where that can not be done."""
        self._packed, self._packed_rows = None, num_rows
        if packing_available():
            try:
                self._packed = torch.ops.mkl._mkl_reorder_linear_weight(self._weight, num_rows)
            except (RuntimeError, NotImplementedError):
                self._packed = None
        return self._packed
