"""A module whose own buffers keep single precision when the model around it is cast."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class SinglePrecisionBuffers(nn.Module):
    """Base for modules that measured something on data: `model.to(torch.bfloat16)` must not round it.

    Statistics with 8 bits of mantissa shift every token, and a rounded codebook changes ids. Moving between
    devices works as ever; only the change of floating type is left out, and only for buffers registered on
    the module itself.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "SinglePrecisionBuffers":
        exact = {
            name: buffer
            for name, buffer in self._buffers.items()
            if buffer is not None and buffer.dtype == torch.float32
        }
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in exact.items():
            moved = self._buffers[name]
            if moved is not None and moved.dtype != buffer.dtype:
                self._buffers[name] = buffer.to(moved.device)
        return self
