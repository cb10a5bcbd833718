"""What a person sees while a model trains."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """A bar with loss, images per second and time left; plain lines where the output is no terminal.

    `line_seconds` is the time between plain lines. `silent` shows nothing: of several processes, one speaks.
    """

    def __init__(self, console: Console | None = None, *, line_seconds: float = 15.0, silent: bool = False) -> None:
        self._console = console or Console(stderr=True, quiet=silent)
        self._line_seconds = line_seconds
        self._bar: Progress | None = None
        self._loss: float | None = None

    @contextmanager
    def running(
        self, first_step: int, num_steps: int, batch_size: int, *, seconds_left: float | None = None
    ) -> Iterator[None]:
        """Show progress from `first_step` to `num_steps` for the length of the block.

        If the run ends after `seconds_left`, the steps it will have taken by then are estimated, and shown as its goal.
        """
        self._first_step, self._num_steps, self._batch_size = first_step, num_steps, batch_size
        self._seconds_left = seconds_left
        self._started = self._last_line = time.perf_counter()
        self._loss = None
        if not self._console.is_terminal:
            yield
            return
        self._bar = Progress(
            TextColumn("[bold]training"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task("", total=num_steps, completed=first_step, figures="")
        try:
            with self._bar:
                yield
        finally:
            self._bar = None

    def stepped(self, step: int, loss: float) -> None:
        """Tell that `step` steps are done; the loss shown is a running mean."""
        self._loss = loss if self._loss is None else 0.97 * self._loss + 0.03 * loss
        now = time.perf_counter()
        elapsed = max(now - self._started, 1e-9)
        speed = (step - self._first_step) * self._batch_size / elapsed
        goal = self._num_steps
        if self._seconds_left is not None:
            reached = self._first_step + int((step - self._first_step) * self._seconds_left / elapsed)
            goal = min(goal, max(step, reached))
        figures = f"loss {self._loss:.4f}  {speed:.0f} images/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, total=goal, figures=figures)
        elif now - self._last_line >= self._line_seconds or step == goal:
            self._last_line = now
            left = (goal - step) * self._batch_size / max(speed, 1e-9)
            self._console.print(f"step {step}/{goal}  {figures}  {left:.0f} s left", highlight=False)

    def note(self, message: str) -> None:
        """A line above the bar."""
        self._console.print(message, highlight=False)
