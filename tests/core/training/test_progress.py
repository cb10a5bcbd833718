"""What is printed while a model trains, where the output is no terminal."""

import io
import re
import time

from rich.console import Console

from fluid_core.training.sight.progress import TrainingProgress


def lines_of(num_steps, seconds_left, monkeypatch):
    """The line after 10 steps of one second each."""
    now = 0.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    out = io.StringIO()
    progress = TrainingProgress(Console(file=out, width=200), line_seconds=5.0)
    with progress.running(0, num_steps, 4, seconds_left=seconds_left):
        now = 10.0
        progress.stepped(10, 0.5)
    return out.getvalue()


def test_steps_left_by_number(monkeypatch):
    """Without a time limit the goal is the number of steps."""
    assert re.search(r"step 10/100 .* 4 images/s  90 s left", lines_of(100, None, monkeypatch))


def test_steps_left_by_the_clock(monkeypatch):
    """With one, it is the steps that the time is enough for, never more than there are."""
    assert re.search(r"step 10/30 .* 20 s left", lines_of(100, 30.0, monkeypatch))
    assert re.search(r"step 10/100 .* 90 s left", lines_of(100, 1000.0, monkeypatch))
