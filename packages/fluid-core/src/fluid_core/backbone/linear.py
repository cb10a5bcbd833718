"""The linear layers of a transformer block, which are packed while pictures are drawn on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fluid_core.autocast import autocast_is_on
from fluid_core.packed_linear import PackedLinear

MOST_PACKED_BYTES = 8 << 30
"""Stacks with more weights than this stay as they are: packed copies take as much memory once more."""


class Linear(nn.Linear):
    """A linear layer, some of whose outputs can be computed alone."""

    def __init__(self, num_inputs: int, num_outputs: int) -> None:
        super().__init__(num_inputs, num_outputs)
        self._packed: dict[tuple[int, int], PackedLinear] | None = None

    def forward(self, x: Float[Tensor, "*rows inputs"]) -> Float[Tensor, "*rows outputs"]:
        """All outputs."""
        packed = self._packed_in_use()
        if packed is None:
            return super().forward(x)
        return self._by_packed(packed, x, 0, self.out_features)

    def part(self, x: Float[Tensor, "*rows inputs"], start: int, stop: int) -> Float[Tensor, "*rows some_outputs"]:
        """The outputs from number `start` on that come before `stop`."""
        packed = self._packed_in_use()
        if packed is None:
            return functional.linear(x, self.weight[start:stop], self.bias[start:stop])
        return self._by_packed(packed, x, start, stop)

    def pack(self) -> None:
        """Multiply with packed copies of the weights as they are now, until `unpack`."""
        self._packed = {}

    def unpack(self) -> None:
        """Use the weights themselves again."""
        self._packed = None

    @property
    def is_packed(self) -> bool:
        """Whether packed copies are in use."""
        return self._packed is not None

    def __getstate__(self) -> dict[str, Any]:
        """Packed copies stay behind: who copies or stores a layer while it is packed gets one that is not."""
        return {**self.__dict__, "_packed": None}

    def _packed_in_use(self) -> dict[tuple[int, int], PackedLinear] | None:
        # A callback, or another thread, may compute a loss while pictures are drawn: gradients need the weights.
        return None if torch.is_grad_enabled() else self._packed

    def _by_packed(self, packed: dict[tuple[int, int], PackedLinear], x: Tensor, start: int, stop: int) -> Tensor:
        part = packed.get((start, stop))
        if part is None:
            part = packed[start, stop] = PackedLinear(self.weight[start:stop], self.bias[start:stop])
        return part(x)


@contextmanager
def packed_linears(stack: nn.Module) -> Iterator[None]:
    """Every `Linear` in `stack` is packed in this context, if that is of use: on a CPU, in float32, without gradients.

    Weights must not change meanwhile. Divided or compiled layers, and stacks too large for a second copy, stay as they
    are.
    """
    layers = [module for module in stack.modules() if isinstance(module, Linear) and not module.is_packed]
    layers = layers if _can_be_packed(stack, layers) else []
    try:
        for layer in layers:
            layer.pack()
        yield
    finally:
        for layer in layers:
            layer.unpack()


def _can_be_packed(stack: nn.Module, layers: list[Linear]) -> bool:
    plain = all(type(layer.weight) is nn.Parameter and layer.weight.device.type == "cpu" for layer in layers)
    single = all(layer.weight.dtype == torch.float32 for layer in layers)
    compiled = any(module._compiled_call_impl is not None for module in stack.modules())
    num_bytes = sum(layer.weight.nbytes for layer in layers)
    in_use = torch.is_grad_enabled() or autocast_is_on(torch.device("cpu"))
    return plain and single and not compiled and not in_use and num_bytes <= MOST_PACKED_BYTES
