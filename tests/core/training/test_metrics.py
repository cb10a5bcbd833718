"""The metrics file: rows survive kills, resumption and numbers that JSON does not know."""

import pytest

from fluid_core.errors import CheckpointError
from fluid_core.training.sight.metrics import MetricsFile, read_metrics


def test_rows_come_back_in_order(tmp_path):
    """What is written is read, with infinities and NaN as null."""
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.write(step=1, loss=0.5)
    file.write(step=2, loss=float("nan"), norm=float("inf"), name="ü")
    assert read_metrics(tmp_path / "metrics.jsonl") == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": None, "norm": None, "name": "ü"},
    ]


def test_a_new_run_starts_an_empty_file(tmp_path):
    """Rows of a run that never wrote a checkpoint are dropped: its steps run again."""
    path = tmp_path / "metrics.jsonl"
    MetricsFile(path).write(step=1, loss=0.5)
    MetricsFile(path)
    assert path.read_text() == ""


def test_resuming_drops_later_rows_and_a_cut_line(tmp_path):
    """Rows up to the checkpoint stay as they are, later ones and a line cut by a kill go."""
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    for step in range(1, 7):
        file.write(step=step, loss=1 / step)
    with path.open("a") as cut:
        cut.write('{"step": 7, "lo')
    assert [row["step"] for row in read_metrics(path)] == [1, 2, 3, 4, 5, 6]
    resumed = MetricsFile(path, resume_step=4)
    resumed.write(step=5, loss=9.0)
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [
        (1, 1),
        (2, 0.5),
        (3, 1 / 3),
        (4, 0.25),
        (5, 9),
    ]


def test_damage_inside_the_file_is_not_passed_over(tmp_path):
    """Only the last line can have been cut by a kill: other damage is named by its line, and the file stays."""
    path = tmp_path / "metrics.jsonl"
    text = '{"step": 1}\n{"st\n{"step": 3}\n'
    path.write_text(text)
    with pytest.raises(CheckpointError, match="line 2 is not valid JSON"):
        MetricsFile(path, resume_step=3)
    assert path.read_text() == text
    with pytest.raises(CheckpointError, match="found no file"):
        read_metrics(tmp_path / "none")
