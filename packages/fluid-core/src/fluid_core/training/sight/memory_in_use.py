"""How much memory a process uses."""

import os
import sys
from pathlib import Path

import torch

_STATM = Path("/proc/self/statm")


def memory_in_use(device: torch.device) -> int:
    """Bytes: on a GPU the most that tensors have taken so far, elsewhere what the process has in main memory.

    Where the system does not tell the latter, it is the most the process ever had.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if _STATM.exists():
        return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    # Not on Windows, and there is another way on Linux.
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kibibytes everywhere but on a Mac.
    return peak if sys.platform == "darwin" else peak * 1024
