"""Counts what a program launches on a device and how much memory that moves, by watching every operator run.

Counting works on CPU tensors, since launches and sizes are the same on every device: each operator of torch that
computes or copies is one launch on a GPU, which reads its inputs and writes its outputs once.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fluid_heads.kernels.launching import KernelLaunch, kernel_is_running, listening, num_bytes

# Operators that look at memory in another way, or set it aside: nothing runs on the device.
_VIEWS = "alias as_strided chunk detach diagonal expand permute select slice split split_with_sizes squeeze t transpose"
_MORE_VIEWS = "_reshape_alias _unsafe_view flatten lift_fresh unbind unflatten unsqueeze view view_as"
_ALLOCATIONS = "empty empty_like empty_strided new_empty new_empty_strided"
_LAUNCH_NOTHING = frozenset(f"{_VIEWS} {_MORE_VIEWS} {_ALLOCATIONS}".split())

# Read nothing, although they have tensors among their arguments.
_READ_NOTHING = frozenset(
    ("full_like", "new_full", "new_ones", "new_zeros", "ones_like", "zeros_like", "fill_", "zero_")
)


@attrs.frozen(kw_only=True)
class DeviceTraffic:
    """Launches, by name, and the bytes they read and write, each tensor once per launch."""

    launches: Counter[str]
    bytes_read: int
    bytes_written: int

    @property
    def num_launches(self) -> int:
        """All launches."""
        return self.launches.total()

    @property
    def num_bytes(self) -> int:
        """All bytes, read and written."""
        return self.bytes_read + self.bytes_written


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds up what operators and kernels do while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.launches: Counter[str] = Counter()
        self.bytes_read = 0
        self.bytes_written = 0

    def kernel(self, launch: KernelLaunch) -> None:
        """A kernel of ours runs."""
        self.launches[launch.name] += 1
        self.bytes_read += launch.bytes_read
        self.bytes_written += launch.bytes_written

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """An operator of torch runs."""
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if kernel_is_running() or name in _LAUNCH_NOTHING:
            return result
        written = tuple(one for one in tree_leaves(result) if isinstance(one, Tensor))
        if not written or all(one.numel() == 0 for one in written):
            return result
        read = () if name in _READ_NOTHING else (*args, *(kwargs or {}).values())
        self.launches[name] += 1
        out = (kwargs or {}).get("out")
        # The target of a copy is its first argument, and is not read.
        inputs = read[1:] if name == "copy_" else read
        self.bytes_read += num_bytes(
            tuple(one for one in tree_leaves(list(inputs)) if isinstance(one, Tensor) and one is not out)
        )
        self.bytes_written += num_bytes(written)
        return result


def count_device_traffic(program: Callable[[], object]) -> DeviceTraffic:
    """Run a program and count its launches and the memory they move."""
    watch = _Watch()
    with torch.no_grad(), watch, listening(watch.kernel):
        program()
    return DeviceTraffic(launches=watch.launches, bytes_read=watch.bytes_read, bytes_written=watch.bytes_written)
