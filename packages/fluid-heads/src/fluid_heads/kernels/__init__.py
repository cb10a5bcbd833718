"""Triton kernels for the heads, and what runs a head on a CUDA device with them.

Triton is optional (`pip install fluid-heads[cuda]`). This package imports without it, and without torch; the modules
that hold kernels import triton when they are loaded, so ask `triton_available()` first.
"""

from fluid_heads.kernels.availability import kernels_run_on, triton_available, uses_kernels

__all__ = ["kernels_run_on", "triton_available", "uses_kernels"]
