"""What a person sees while a cache is built."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from fluid_core.data.token_cache.size_estimate import readable_bytes

_LINE_SECONDS = 15.0


class CacheProgress:
    """A bar with images per second and time left; plain lines where the output is no terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bar: Progress | None = None

    @contextmanager
    def running(self, total: int, *, finished: int) -> Iterator[None]:
        """Show progress up to about `total` images, `finished` of which were done before, while the block lasts."""
        self._total, self._first, self._done, self._bytes = total, finished, finished, 0
        self._started = self._last_line = time.perf_counter()
        if not self._console.is_terminal:
            yield
            return
        self._bar = Progress(
            TextColumn("[bold]encoding"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._task = self._bar.add_task("", total=total, completed=finished, figures="")
        try:
            with self._bar:
                yield
        finally:
            self._bar = None

    def encoded(self, num_items: int) -> None:
        """Tell that further images went through the tokenizer."""
        self._done += num_items
        now = time.perf_counter()
        speed = (self._done - self._first) / max(now - self._started, 1e-9)
        figures = f"{speed:.0f} images/s  {readable_bytes(self._bytes)} written"
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, total=max(self._total, self._done), figures=figures)
        elif now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            left = max(self._total - self._done, 0) / max(speed, 1e-9)
            self._console.print(f"{self._done}/{self._total} images  {figures}  {left:.0f} s left", highlight=False)

    def wrote(self, num_bytes: int) -> None:
        """Tell that a shard is on disk."""
        self._bytes += num_bytes

    def note(self, message: str) -> None:
        """A line above the bar."""
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)
