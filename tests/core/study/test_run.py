"""Studies that are really trained and measured, in processes of their own, and go on after a kill."""

import json
import signal
import subprocess
import sys
import time

import attrs
import pytest
from PIL import Image
from typer.testing import CliRunner

from fluid_core.commands.program import app
from fluid_core.errors import CheckpointError, CheckpointMismatchError, InvalidRequestError
from fluid_core.evaluation.result_file import read_result
from fluid_core.study.estimate import estimate
from fluid_core.study.grid import study_cells
from fluid_core.study.jobs import run_states
from fluid_core.study.report import write_report
from fluid_core.study.run import chosen_cells, run_study
from fluid_core.study.settings import StudyBudget, load_study

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_thread(monkeypatch):
    """Runs inherit it."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def warm(monkeypatch, warm_start):
    """Runs start without their seconds of imports."""
    monkeypatch.setattr(sys, "executable", warm_start.python)


def states(study, out):
    """State of each run by name."""
    return {one.cell.name: one.state for one in run_states(study_cells(study), out, study.evaluation)}


def test_a_study_is_trained_measured_and_reported(study_file, warm, tmp_path):
    """Two runs at a time; the report has every row; a second call does nothing but write the same report."""
    study, out, told = load_study(study_file), tmp_path / "out", []
    outcome = run_study(study, out, num_jobs=2, note=told.append)
    assert outcome.failed == ()
    assert not outcome.stopped
    assert set(states(study, out).values()) == {"measured"}
    rows = json.loads((out / "report.json").read_text())
    assert [row["run"] for row in rows] == [cell.name for cell in study_cells(study)]
    for row in rows:
        assert row["steps"] == 2
        assert row["images_seen"] == 8
        assert set(row["scores"]) == {*row["chance"]}
        assert len(row["scores"]) == 7
    # Raster takes no other number of steps, and only iterative heads take one.
    assert [set(row["by_order_steps"]) for row in rows] == [set(), {"2"}] * 2
    assert [set(row["by_head_steps"]) for row in rows] == [set(), {"2"}] * 2
    record = read_result(out / "runs" / rows[0]["run"] / "evaluation.json")
    assert record.model.weights == "ema"
    assert record.seeds["prompts"] != record.seeds["prompts_for_guidance"]
    page = (out / "report.md").read_text()
    for name in ("loss.png", "scores.png", "steps.png", "comparison.png"):
        assert f"({name})" in page
        with Image.open(out / name) as picture:
            picture.load()
    files = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*") if path.is_file()}
    report, again = (out / "report.json").read_text(), []
    run_study(study, out, num_jobs=2, note=again.append)
    assert again == []
    assert (out / "report.json").read_text() == report
    assert {path: path.stat().st_mtime_ns for path in files} == files

    # Other settings of the evaluation measure again and train nothing; other settings of training are refused.
    more = attrs.evolve(study, evaluation=attrs.evolve(study.evaluation, prompts_per_task=1))
    assert set(states(more, out).values()) == {"trained"}
    with pytest.raises(CheckpointMismatchError, match="other settings"):
        states(attrs.evolve(study, budget=StudyBudget(images=16)), out)


def test_a_run_that_fails_does_not_stop_the_others(study_file, tmp_path):
    """Its last lines are told, the rest is trained and reported, and the command ends with an error."""
    out = tmp_path / "out"
    blocked = out / "runs" / "discrete-raster--a--seed0"
    blocked.mkdir(parents=True)
    (blocked / "metrics.jsonl").mkdir()
    ran = CliRunner().invoke(app, ["study", str(study_file), "--out", str(out), "--only", "*--a--*"])
    assert ran.exit_code == 1
    assert "discrete-raster--a--seed0 failed" in ran.output
    rows = json.loads((out / "report.json").read_text())
    assert [row["run"] for row in rows] == ["continuous-random--a--seed0"]
    assert "3 runs are not there yet" in (out / "report.md").read_text()


def test_a_killed_study_goes_on_where_it_was(study_file, warm, tmp_path):
    """A study that is terminated stops its run, which continues from its checkpoint; nothing is left running."""
    out = tmp_path / "out"
    longer = ["budget.images=800", "changes.training.checkpoint_every=5", "changes.training.num_validation_images=0"]
    only = ["--only", "discrete-raster--a--seed0", "--out", str(out)]
    command = [sys.executable, "-m", "fluid_core.cli", "study", str(study_file), *longer, *only]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    run = out / "runs" / "discrete-raster--a--seed0"
    ends = time.monotonic() + 120
    while not list((run / "checkpoints").glob("step-*")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < ends, "no checkpoint was written"
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=150)[1]
    assert process.returncode == 130
    assert "stopped after" in told
    assert not (run / "model").exists()
    lock = out / "runs" / f".{run.name}.lock"
    fcntl = pytest.importorskip("fcntl")
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    reached = max(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))
    assert 5 <= reached < 200
    before = [line for line in (run / "metrics.jsonl").read_text().splitlines() if json.loads(line)["step"] <= reached]
    study = load_study(study_file, longer)
    assert states(study, out)["discrete-raster--a--seed0"] == "begun"
    outcome = run_study(study, out, only=["discrete-raster--a--seed0"], note=print)
    assert outcome.failed == ()
    # What was done before stands as it was, so it was not done again.
    after = (run / "metrics.jsonl").read_text().splitlines()
    assert after[: len(before)] == before
    assert json.loads(after[-1])["step"] == 200


def test_the_time_that_is_given_ends_a_study(study_file, tmp_path):
    """After the time nothing is started, and the report is of what there is; with nothing there it says so."""
    study = load_study(study_file)
    with pytest.raises(CheckpointError, match="found none"):
        run_study(study, tmp_path / "out", seconds=0.0, note=print)
    assert set(states(study, tmp_path / "out").values()) == {"missing"}


def test_estimates_are_of_every_run(study_file):
    """Each variant and size is timed once; a run of twice the images takes twice as long."""
    study = load_study(study_file, ["seeds=[0, 1]", "budget.images=4000"])
    told = []
    costs = estimate(study_cells(study), study.evaluation, num_steps=2, note=told.append)
    assert len(costs) == 8
    assert len(told) == 4
    for cost in costs:
        assert cost.training_hours == pytest.approx(4000 / cost.images_per_second / 3600)
        assert cost.hours > cost.training_hours > 0
    assert costs[0].parameters < costs[-1].parameters


def test_commands_that_train_nothing(study_file, tmp_path):
    """`--status` lists the runs; patterns that name none and reports of nothing are refused."""
    ran = CliRunner().invoke(app, ["study", str(study_file), "--status", "--out", str(tmp_path / "out")])
    assert ran.exit_code == 0, ran.output
    assert "4 runs: 4 missing" in ran.output
    assert not (tmp_path / "out").exists()
    study = load_study(study_file)
    with pytest.raises(InvalidRequestError, match="discrete-raster--a--seed0"):
        chosen_cells(study_cells(study), ["nothing*"])
    with pytest.raises(CheckpointError, match="found none"):
        write_report(study, study_cells(study), tmp_path / "out")
