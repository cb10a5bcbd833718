"""Runs an example much as a person would: a script in a process of its own."""

import os
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def run_example(warm_start):
    """A function that runs a script of `examples` with arguments and returns what it printed."""

    def run(script: str, *arguments: object) -> str:
        finished = subprocess.run(
            [warm_start.python, str(REPOSITORY / "examples" / script), *map(str, arguments)],
            env=os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout + finished.stderr

    return run
