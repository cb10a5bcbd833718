"""SIGTERM, which says that a machine is wanted back: the run ends after the step it is in."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopSignal:
    """Whether this process was asked to end. A second SIGTERM ends it at once, as it would have without us."""

    def __init__(self) -> None:
        self.came = False
        """True from the first SIGTERM on."""

    @contextmanager
    def awaited(self) -> Iterator[None]:
        """Notice SIGTERM for the length of a block. Only the main thread can; elsewhere nothing is noticed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def notice(_: int, __: FrameType | None) -> None:
            self.came = True
            signal.signal(signal.SIGTERM, before)

        before = signal.signal(signal.SIGTERM, notice)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
