"""The fastest a device can multiply matrices: what the utilisation of a run is measured against."""

import re
import time
from functools import lru_cache

import torch

_SIZE_ON_CPU, _SIZE_ON_GPU = 512, 8192
_NUM_TRIES = 4

_WORDS = {
    "h100-pcie": ("h100", "pcie"),
    "h100": ("h100",),
    "h200": ("h200",),
    "b200": ("b200",),
    "a100-40gb": ("a100", "40gb"),
    "a100": ("a100",),
    "l40s": ("l40s",),
    "l4": ("l4",),
    "rtx-4090": ("rtx", "4090"),
    "rtx-3090": ("rtx", "3090"),
    "mi300x": ("mi300x",),
}
"""Words in the name that a driver gives a GPU, for those whose data sheet we have; more telling ones first."""


def known_peak(device_name: str, dtype: torch.dtype) -> float | None:
    """FLOP/s on the data sheet of a GPU, by its driver's name for it; None for others."""
    # Asked on GPUs alone.
    from fluid_core.planning.gpus import GPUS

    found = set(re.findall("[a-z0-9]+", device_name.lower()))
    for key, words in _WORDS.items():
        if key in GPUS and found.issuperset(words):
            gpu = GPUS[key]
            if dtype == torch.bfloat16:
                return gpu.bfloat16_flops
            allowed = torch.get_float32_matmul_precision() != "highest"
            return gpu.tensorfloat32_flops if allowed else gpu.float32_flops
    return None


@lru_cache
def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of matrix products: what a GPU's data sheet says, or the best of a few measured products.

    Measuring takes some hundredths of a second on a CPU, with the threads that torch uses.
    """
    if device.type == "cuda":
        known = known_peak(torch.cuda.get_device_name(device), dtype)
        if known is not None:
            return known
    size = _SIZE_ON_CPU if device.type == "cpu" else _SIZE_ON_GPU
    one = torch.full((size, size), 0.5, device=device, dtype=dtype)
    best = float("inf")
    # The first product also loads libraries.
    for _ in range(1 + _NUM_TRIES):
        started = time.perf_counter()
        product = one @ one
        # Reading a number waits for the device.
        product[0, 0].item()
        best = min(best, time.perf_counter() - started)
    return 2.0 * size**3 / best
