"""Runs the kernels in Triton's interpreter, on CPU tensors.

The interpreter and the compiler can not share a process, and which of them it is must be said before triton is first
imported. GPU tests are therefore run on their own, with TRITON_INTERPRET=0.
"""

import os
import sys

import pytest
import torch
from torch import Tensor, nn

from fluid_core.exchange import Guidance
from fluid_core.keyed_random import KeyedRandom
from fluid_heads.denoising.network import DenoisingNetwork
from fluid_heads.kernels import kernels_run_on, triton_available

LOADED_BEFORE = "triton" in sys.modules
os.environ.setdefault("TRITON_INTERPRET", "1")

# Triton exists for Linux only. Without it there is nothing to test here; tests/heads/test_kernels_are_optional.py says
# so in the report.
collect_ignore_glob = [] if triton_available() else ["test_*.py"]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse to run kernels compiled for no device at all."""
    assert kernels_run_on("cuda") or not LOADED_BEFORE, (
        "triton was imported before these tests could ask for its interpreter: import it later, in functions"
    )


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(5)


@pytest.fixture
def keys():
    """A function that makes a random source with some rows; the same one every time it is called."""

    def make(num_rows: int, seed: int = 0) -> KeyedRandom:
        return KeyedRandom.from_generator(torch.Generator().manual_seed(seed), num_rows)

    return make


@pytest.fixture
def guide(generator):
    """A function that makes guidance for some hidden vectors, with another scale for every token."""

    def make(condition: Tensor) -> Guidance:
        negative = torch.randn(condition.shape, generator=generator)
        return Guidance(negative=negative, scale=torch.linspace(0.5, 3.0, condition.shape[0]))

    return make


@pytest.fixture
def network() -> DenoisingNetwork:
    """A small network whose zero-initialised layers have values too."""
    return random_network()


def random_network() -> DenoisingNetwork:
    """A network of width 24, which is no power of two, for tokens of 5 channels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = DenoisingNetwork(channels=5, num_outputs=10, condition_width=12, width=24, depth=3)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.2)
    return network.requires_grad_(False)
