"""Linear layers whose weights are read again at once, as a denoiser's are at every step, on a CPU in float32.

Such weights come from the processor's cache rather than from memory, and then what a product of a few rows costs is
the rearranging that the math library does around it. Two ways of writing the product avoid most of that:

- a few rows meet the weight in strips, as a batch of narrow products;
- some more take the weight as the left factor, which is then read as it lies.

For a weight of 1024 x 1024 on two cores, the first took 0.8 to 0.95 of the plain product's time at 4 to 14 rows, the
second 0.7 to 0.85 at 15 to 48 rows.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fluid_core.packed_linear import FEWEST_PACKED_ROWS, SMALLEST_PACKED_WEIGHT, PackedLinear

_MOST_ROWS_IN_STRIPS = 14
_MOST_ROWS_WEIGHT_FIRST = 48
_MOST_ROWS_AS_COLUMNS = 28
_OUTPUTS_PER_STRIP = 64


class RepeatedLinear:
    """`x @ weight.T + bias` with weight and bias as they are now: they must not change while this is in use.

    A weight that is small or can not be cut into strips is a `PackedLinear`, as every weight is for many rows.
    """

    def __init__(self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, "outputs"]) -> None:
        self._weight = weight.detach()
        self._bias = bias.detach()
        self._packed = PackedLinear(weight, bias)
        suits = weight.numel() >= SMALLEST_PACKED_WEIGHT and len(weight) % _OUTPUTS_PER_STRIP == 0
        self._most_rows = _MOST_ROWS_WEIGHT_FIRST if suits and torch._C.has_mkl else 0
        if self._most_rows:
            self._strips = self._weight.view(-1, _OUTPUTS_PER_STRIP, weight.shape[1]).mT
            self._strip_biases = self._bias.view(-1, 1, _OUTPUTS_PER_STRIP)

    def __call__(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """The layer's output for any number of rows. It may lie transposed in memory, and so may `x`."""
        num_rows = x.shape[0]
        if num_rows > self._most_rows:
            return self._packed(x)
        if num_rows < FEWEST_PACKED_ROWS:
            return functional.linear(x, self._weight, self._bias)
        if num_rows <= _MOST_ROWS_IN_STRIPS:
            products = torch.baddbmm(self._strip_biases, x.expand(self._strips.shape[0], *x.shape), self._strips)
            return products.transpose(0, 1).reshape(num_rows, self._weight.shape[0])
        # Up to some number, rows that lie as columns, as this product leaves them, are as good as any.
        rows = x if num_rows <= _MOST_ROWS_AS_COLUMNS else x.contiguous()
        return torch.addmm(self._bias[:, None], self._weight, rows.t()).t()
