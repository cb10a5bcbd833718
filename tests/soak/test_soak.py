"""A few kills of the soak, which `make soak` does at length."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def soak():
    """The program beside this file, as a module."""
    place = importlib.util.spec_from_file_location("soak", Path(__file__).with_name("soak.py"))
    module = importlib.util.module_from_spec(place)
    # Classes with fields look their module up by name.
    sys.modules["soak"] = module
    place.loader.exec_module(module)
    yield module
    del sys.modules["soak"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_processes", "sharding", "num_kills"), [(1, "none", 2), (2, "full", 1)], ids=["one", "two-sharded"]
)
def test_a_killed_run_ends_as_if_nothing_had_happened(soak, warm_start, tmp_path, num_processes, sharding, num_kills):
    """Killed with SIGKILL and resumed, it has the losses and weights of a run in peace, to the bit."""
    kind = soak.Kind(num_processes=num_processes, sharding=sharding)
    told = []

    def start(arguments, environment, log):
        with log.open("ab") as file:
            return warm_start.start(arguments, output=file, environment=environment)

    report = soak.soak(
        tmp_path / "soak", kind, num_kills=num_kills, num_steps=48, seed=3, tell=told.append, start=start
    )
    assert sum(report.kills.values()) == num_kills, told
    assert report.same, (report, told)


def test_the_soak_sees_what_differs(soak, run_state):
    """It compares for real: a changed weight and a changed loss are both found."""
    peaceful, disturbed = run_state("peaceful"), run_state("disturbed", weight=1e-6, loss=0.5)
    report = soak.Report()
    soak._compare(peaceful, disturbed, report)
    assert not report.same
    assert report.different_tensors == 1
    assert report.largest_difference == pytest.approx(1e-6, rel=1e-3)
    assert report.different_rows == 1
    same = soak.Report()
    soak._compare(peaceful, peaceful, same)
    assert same.same


@pytest.fixture
def run_state(tmp_path):
    """A function that writes what the soak compares of a run."""
    import torch

    from fluid_core.atomic_files import write_safetensors
    from fluid_core.training.sight.metrics import MetricsFile

    def write(name, *, weight=0.0, loss=0.0):
        for weights in ("model", "model-raw"):
            (tmp_path / name / weights).mkdir(parents=True)
            moved = weight if weights == "model" else 0.0
            tensors = {"a": torch.zeros(3), "b": torch.full((2,), moved)}
            write_safetensors(tmp_path / name / weights / "model.safetensors", tensors)
        metrics = MetricsFile(tmp_path / name / "metrics.jsonl", resume_step=0)
        metrics.write(step=1, loss=1.0, seconds=2.0)
        metrics.write(step=2, loss=1.0 + loss, seconds=len(name))
        return tmp_path / name

    return write
