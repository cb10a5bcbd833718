"""What this machine reaches at best: the yardstick of the benchmarks in this folder."""

import time
from collections.abc import Callable

import attrs
import torch


@attrs.frozen(kw_only=True)
class MachineLimits:
    """Rates of large matrix products in float32 and of large copies."""

    flops_per_second: float
    bytes_per_second: float

    def __str__(self) -> str:
        return (
            f"{torch.get_num_threads()} threads; matrix products {self.flops_per_second / 1e9:.0f} GFLOP/s, "
            f"copies {self.bytes_per_second / 1e9:.1f} GB/s"
        )


def measure_limits() -> MachineLimits:
    """Best of several large matrix products, and of copies."""
    a, b = torch.randn(2560, 1024), torch.randn(1024, 4096)
    product = min(seconds_of(lambda: a @ b) for _ in range(8))
    return MachineLimits(flops_per_second=2.0 * 2560 * 1024 * 4096 / product, bytes_per_second=rate_of_copies())


def rate_of_copies() -> float:
    """Bytes per second of the best of several large copies; each counts what it reads and what it writes.

    On a shared machine it changes by a half within minutes: to compare with, measure it right before and after.
    """
    source = torch.randn(64 * 1024 * 1024)
    target = torch.empty_like(source)
    copy = min(seconds_of(lambda: target.copy_(source)) for _ in range(5))
    return 2.0 * 4.0 * source.numel() / copy


def seconds_of(call: Callable[[], object]) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
