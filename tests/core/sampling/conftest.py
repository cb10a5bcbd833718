"""A small saved model, and the program that draws with it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fluid_core import FluidPipeline
from fluid_core.cli import main


@pytest.fixture(scope="session")
def saved_model(small_model, tmp_path_factory) -> Path:
    """The folder of a tiny model of 24 x 24 pixels and 9 tokens, over random orders."""
    folder = tmp_path_factory.mktemp("saved") / "tiny"
    FluidPipeline(small_model(), weights="ema").save_pretrained(folder)
    return folder


@pytest.fixture
def fluid(monkeypatch, capsys, tmp_path) -> Callable[..., tuple[int, str, str]]:
    """A function that runs the program in this process, in `tmp_path`: exit code, output and error output."""

    def run(*arguments: Any) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["fluid", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """Variables for programs that must draw to the byte what this process draws: as many threads."""
    return {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), "NO_COLOR": "1"}


@pytest.fixture
def fluid_in_processes(environment, tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """A function that runs the program through `torchrun`, as a user does."""

    def run(num_processes: int, *arguments: Any) -> subprocess.CompletedProcess:
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
        return subprocess.run(
            [*start, "-m", "fluid_core.cli", *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run
