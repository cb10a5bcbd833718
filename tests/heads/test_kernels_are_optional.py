"""Heads work without triton, and importing them loads neither it nor torch."""

import os
import subprocess
import sys

import pytest

from fluid_heads.kernels import availability, kernels_run_on, triton_available

WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None
import fluid_heads, fluid_heads.kernels, fluid_heads.plugin
loaded = {"torch", "triton.language"} & set(sys.modules)
assert not loaded, loaded
from fluid_core.exchange import SamplerSettings
from fluid_core.token_space import ContinuousTokens, Grid
head = fluid_heads.DiffusionHead(ContinuousTokens(grid=Grid(height=1, width=1), channels=2), 8)
print(head.sampler(SamplerSettings()).backend)
"""


def run(program, **variables):
    """Standard output of a fresh interpreter."""
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=kept | variables
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_heads_sample_without_triton():
    """Where triton can not be imported, heads are built and have a sampler."""
    assert run(WITHOUT_TRITON).strip() in ("fused", "reference")


def test_kernels_need_triton(monkeypatch):
    """Without triton the kernels run nowhere."""
    monkeypatch.setattr(availability, "triton_available", lambda: False)
    assert not kernels_run_on("cuda")
    assert not kernels_run_on("cpu")


@pytest.mark.skipif(not triton_available(), reason="triton is not installed; it exists for Linux only")
def test_the_interpreter_runs_on_a_cpu_and_the_compiler_on_cuda(monkeypatch):
    """Kernels run on one type of device, which one is said by the environment."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert kernels_run_on("cpu")
    assert not kernels_run_on("cuda")
    monkeypatch.delenv("TRITON_INTERPRET")
    assert kernels_run_on("cuda")
    assert not kernels_run_on("cpu")
