"""Linear layers whose weights are laid out for speed, for inference on a CPU in float32.

A product of some dozens of rows by a large weight runs fastest when every thread has outputs of its own and meets all
rows: the library's own division of the work, by rows, makes each thread read the whole weight. One batched product
over shards of the outputs says exactly that. On two cores it multiplies 64 rows by a 1024 x 1024 weight 1.3 to 1.5
times as fast as the plain product.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

# Found by measuring square layers of width 1024 on two cores: with the rows as columns the library multiplies a single
# row and these batches up to 1.5 times faster than a plain product. From 49 rows on, shards are faster.
_ROWS_AS_COLUMNS = frozenset({1, *range(5, 49)})
_FEWEST_SHARDED_ROWS = 49


def num_shards(num_outputs: int) -> int:
    """As many equal parts of the outputs as there are threads, or the next smaller number that divides them."""
    return next(count for count in range(min(torch.get_num_threads(), num_outputs), 0, -1) if num_outputs % count == 0)


class ShardedLinear:
    """`x @ weight.T + bias` with a copy of the weight, cut into shards of the outputs."""

    def __init__(self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, "outputs"]) -> None:
        num_outputs, num_inputs = weight.shape
        self.num_shards = num_shards(num_outputs)
        shards = weight.detach().float().view(self.num_shards, num_outputs // self.num_shards, num_inputs)
        self._weight = shards.transpose(1, 2).contiguous()
        self._bias = bias.detach().to(torch.float32, copy=True).view(self.num_shards, 1, -1)

    @property
    def num_outputs(self) -> int:
        """Outputs of all shards together."""
        return self._bias.numel()

    def __call__(
        self, x: Float[Tensor, "rows inputs"], *, out: Float[Tensor, "shards rows part"] | None = None
    ) -> Float[Tensor, "shards rows part"]:
        """The outputs, shard by shard; `out` is memory of that shape to write them to."""
        return torch.baddbmm(self._bias, x.expand(self.num_shards, *x.shape), self._weight, out=out)


class PackedLinear:
    """`activation(x @ weight.T + bias)`, with copies of weight and bias; the activation is SiLU or none.

    The fastest of three ways to multiply is taken, by the number of rows. The weight is cut into shards when the layer
    first meets a number of rows that asks for it.
    """

    def __init__(
        self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, "outputs"], *, silu: bool = False
    ) -> None:
        self._weight = weight.detach().to(torch.float32, copy=True).contiguous()
        self._bias = bias.detach().to(torch.float32, copy=True).contiguous()
        self._column_bias = self._bias[:, None]
        self._silu = silu
        self._sharded: ShardedLinear | None = None

    def __call__(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """The layer's output; for few rows it may be a transposed view."""
        num_rows = x.shape[0]
        if num_rows in _ROWS_AS_COLUMNS:
            return self._activated(torch.addmm(self._column_bias, self._weight, x.t())).t()
        if num_rows >= _FEWEST_SHARDED_ROWS:
            if self._sharded is None:
                self._sharded = ShardedLinear(self._weight, self._bias)
            return self._joined(self._sharded(x).transpose(0, 1))
        return self._activated(functional.linear(x, self._weight, self._bias))

    def _activated(self, output: Tensor) -> Tensor:
        return functional.silu(output, inplace=True) if self._silu else output

    def _joined(self, parts: Float[Tensor, "rows shards part"]) -> Float[Tensor, "rows outputs"]:
        """One row of outputs after the other, activated in the same pass over memory."""
        if not self._silu:
            return parts.flatten(1)
        joined = parts.new_empty(parts.shape)
        torch.ops.aten.silu.out(parts, out=joined)
        return joined.flatten(1)
