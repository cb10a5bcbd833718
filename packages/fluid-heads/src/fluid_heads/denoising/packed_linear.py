"""A linear layer with its weight laid out for the matrix-product library, for inference on a CPU.

oneDNN multiplies a few rows by a reordered weight faster than a plain one, and applies bias and activation while the
result is in registers. PyTorch exposes this to its own compiler as operators with a leading underscore, so their
absence or refusal must never matter: the layer then computes as `torch.nn.functional.linear` does.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def packing_available() -> bool:
    """Whether this build of PyTorch has oneDNN's operators for packed weights."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class PackedLinear:
    """`activation(x @ weight.T + bias)` in float32, with copies of weight and bias; the activation is SiLU or none.

    A single row is multiplied with the plain weight, which is no slower then.
    """

    def __init__(
        self, weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, "outputs"], *, silu: bool = False
    ) -> None:
        self._weight = weight.detach().to(torch.float32, copy=True).contiguous()
        self._bias = bias.detach().to(torch.float32, copy=True).contiguous()
        self._silu = silu
        self._packed = self._pack()

    @property
    def num_outputs(self) -> int:
        """Width of what a call returns."""
        return int(self._weight.shape[0])

    @property
    def is_packed(self) -> bool:
        """Whether products of several rows use the reordered weight."""
        return self._packed is not None

    def _pack(self) -> Tensor | None:
        if not packing_available():
            return None
        try:
            packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(self._weight, None)
            probe = torch.zeros(2, self._weight.shape[1])
            torch.ops.mkldnn._linear_pointwise(probe, packed, self._bias, "swish", [], "")
        except (RuntimeError, NotImplementedError, TypeError):
            return None
        return packed

    def __call__(self, x: Float[Tensor, "rows inputs"]) -> Float[Tensor, "rows outputs"]:
        """The layer's output."""
        if self._packed is not None and x.shape[0] > 1:
            attribute = "swish" if self._silu else "none"
            output: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, attribute, [], "")
            return output
        output = functional.linear(x, self._weight, self._bias)
        return functional.silu(output, inplace=True) if self._silu else output
