"""What a person sees while a model trains."""

import math
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
        self._of_the_machine = ""
        self._seconds_until_goal: float | None = None

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
        self._loss, self._of_the_machine = None, ""
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
        """Tell that `step` steps are done; the loss shown is a running mean of those that are finite."""
        if math.isfinite(loss):
            self._loss = loss if self._loss is None else 0.97 * self._loss + 0.03 * loss
        now = time.perf_counter()
        elapsed = max(now - self._started, 1e-9)
        speed = (step - self._first_step) * self._batch_size / elapsed
        goal = self._num_steps
        if self._seconds_left is not None:
            reached = self._first_step + int((step - self._first_step) * self._seconds_left / elapsed)
            goal = min(goal, max(step, reached))
        shown = math.nan if self._loss is None else self._loss
        figures = f"loss {shown:.4f}  {speed:.0f} images/s{self._of_the_machine}"
        self._seconds_until_goal = (goal - step) * self._batch_size / max(speed, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, completed=step, total=goal, figures=figures)
        elif now - self._last_line >= self._line_seconds or step == goal:
            self._last_line = now
            left = _duration(self._seconds_until_goal)
            self._console.print(f"step {step}/{goal}  {figures}  {left} left", highlight=False)

    def machine(self, *, flops_utilisation: float | None, memory_bytes: int) -> None:
        """Show, from the next step on, the share of the devices' peak that the model uses, and memory in bytes."""
        used = "" if flops_utilisation is None else f"  MFU {100 * flops_utilisation:.1f}%"
        self._of_the_machine = f"{used}  {memory_bytes / 2**30:.2f} GiB"

    @property
    def seconds_left(self) -> float | None:
        """Until the goal at the speed so far, while a run goes on; None before its first step."""
        return self._seconds_until_goal

    def note(self, message: str) -> None:
        """A line above the bar."""
        self._console.print(message, highlight=False)


def _duration(seconds: float) -> str:
    """Seconds up to ten minutes, then minutes and hours."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
