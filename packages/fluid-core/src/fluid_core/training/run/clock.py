"""How long a run has trained, and when it ends."""

import time

from fluid_core.configuration import TrainingCourse


class RunClock:
    """The time of a run over all of its processes, against the steps and minutes it may take.

    `seconds_before` is what the processes took that this one continues.
    """

    def __init__(self, course: TrainingCourse, *, seconds_before: float = 0.0) -> None:
        self._course = course
        self._seconds_before = seconds_before
        self._started: float | None = None

    def start(self) -> None:
        """Time counts from here."""
        self._started = time.perf_counter()

    @property
    def seconds_here(self) -> float:
        """Time trained in this process; 0 before `start`."""
        return 0.0 if self._started is None else time.perf_counter() - self._started

    @property
    def seconds(self) -> float:
        """Time trained so far, in this process and those it continues."""
        return self._seconds_before + self.seconds_here

    @property
    def seconds_left(self) -> float | None:
        """Time until the limit; None if there is none."""
        limit = self._course.max_minutes
        return None if limit is None else 60.0 * limit - self.seconds

    @property
    def share_of_time(self) -> float:
        """How much of the time limit has passed, from 0 to 1; 0 without a limit."""
        limit = self._course.max_minutes
        return 0.0 if limit is None else min(1.0, self.seconds / (60.0 * limit))

    def finished(self, step: int, *, share_of_time: float | None = None) -> bool:
        """Whether the run ends after `step` steps, now or at another share of the time."""
        share = self.share_of_time if share_of_time is None else share_of_time
        return step >= self._course.num_steps or share >= 1.0
