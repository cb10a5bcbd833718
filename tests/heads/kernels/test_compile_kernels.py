"""Every kernel, compiled for two generations of GPUs on a machine without one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]

# Any of the tests may be the one for which everything is compiled.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """What the script finds, in a process of its own, which has the compiler and not the interpreter."""
    file = tmp_path_factory.mktemp("compiled") / "rows.json"
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    finished = subprocess.run(
        [
            sys.executable,
            str(REPOSITORY / "examples" / "benchmarks" / "compile_kernels.py"),
            "--few",
            "--json",
            str(file),
        ],
        capture_output=True,
        text=True,
        check=False,
        env=kept,
    )
    assert file.exists(), finished.stdout + finished.stderr
    return json.loads(file.read_text())


def test_no_kernel_spills_or_asks_for_too_much(rows):
    """No registers are spilled and shared memory stays within the chip's limit, on sm_80 and on sm_90."""
    assert {row["capability"] for row in rows} == {80, 90}
    assert {row["kernel"] for row in rows} == {
        "modulated_norm_kernel",
        "reverse_step_kernel",
        "vocabulary_kernel",
        "best_of_splits_kernel",
    }
    for row in rows:
        assert row["spilled_bytes"] == 0, row
        assert row["shared_bytes"] <= row["shared_limit"], row
        assert 0 < row["registers"] <= 255, row


def test_all_shapes_in_use_are_among_them(rows):
    """Tokens of 16 and 48 channels, vocabularies of 8192 and 16384, both precisions, with and without guidance."""
    shapes = "\n".join(row["shape"] for row in rows)
    for part in ("16 channels", "48 channels", "8192 ids", "16384 ids", "bfloat16", "float32", "guided", "one token"):
        assert part in shapes
