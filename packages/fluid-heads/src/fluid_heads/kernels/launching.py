"""Launches kernels, and tells whoever listens which ones ran and how much memory they touched."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
from torch import Tensor


@attrs.frozen(kw_only=True)
class KernelLaunch:
    """One launch of a kernel, with the memory it reads and writes at least once."""

    name: str
    bytes_read: int
    bytes_written: int


_listeners: list[Callable[[KernelLaunch], None]] = []
_num_running = 0


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    *arguments: Any,
    reads: tuple[Tensor | None, ...],
    writes: tuple[Tensor | None, ...],
    **constants: Any,
) -> None:
    """Run a kernel. `reads` and `writes` are the parts of its arguments that it touches.

    The first argument is a tensor. On the meta device nothing is computed, as by torch's own operators. Products and
    sums are fused where that saves an instruction; Triton's default for it differs between versions.
    """
    global _num_running
    if _listeners:
        happened = KernelLaunch(name=kernel.__name__, bytes_read=num_bytes(reads), bytes_written=num_bytes(writes))
        for listener in _listeners:
            listener(happened)
    if arguments[0].device.type == "meta":
        return
    _num_running += 1
    try:
        kernel[grid](*arguments, enable_fp_fusion=True, **constants)
    finally:
        _num_running -= 1


def kernel_is_running() -> bool:
    """Whether a launch is under way. The interpreter uses torch itself; what it does is not the program's doing."""
    return _num_running > 0


def num_bytes(tensors: tuple[Tensor | None, ...]) -> int:
    """Memory behind some tensors; an axis that repeats the same values (stride 0) counts once."""
    total = 0
    for tensor in tensors:
        if tensor is not None and tensor.numel() > 0:
            elements = 1
            for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
                elements *= size if stride != 0 else 1
            total += elements * tensor.element_size()
    return total


@contextmanager
def listening(listener: Callable[[KernelLaunch], None]) -> Iterator[None]:
    """Call `listener` for every launch inside."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
