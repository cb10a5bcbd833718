"""How tests of all areas start programs."""

import gc
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import first_calls
import pytest


def pytest_collection_finish() -> None:
    """What all the imports made stays: looking through it for garbage takes half a second each time."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Extensions complain of what nobody took apart."""
    gc.unfreeze()


def pytest_runtest_setup() -> None:
    """Types are checked in the first calls of every test."""
    first_calls.begin_anew()


@pytest.fixture(scope="session")
def warm_start(tmp_path_factory) -> Iterator:
    """A `WarmStart`: runs Python programs in processes of their own without their seconds of imports."""
    place = importlib.util.spec_from_file_location("warm_start", Path(__file__).with_name("warm_start.py"))
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    # The processes of one call of pytest share a folder, in which each has one.
    place = tmp_path_factory.getbasetemp()
    started = module.WarmStart((place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / "warm")
    yield started
    started.close()


@pytest.fixture(scope="session")
def torchrun(warm_start) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """A function that runs a program through `torchrun`; where `cold`, in processes that import everything anew."""

    def run(
        num_processes: int,
        *arguments: object,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
        cold: bool = False,
        **others: Any,
    ) -> "subprocess.CompletedProcess[str]":
        python = sys.executable if cold else warm_start.python
        start = [python, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
        return subprocess.run(
            [*start, *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
            **others,
        )

    return run
