"""Brings the runs of a study to their end: several at a time, each in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO

import attrs

from fluid_core.atomic_files import check_writable, write_bytes
from fluid_core.configuration import config_from_json
from fluid_core.configuration.structuring import unstructure
from fluid_core.errors import CheckpointMismatchError, InvalidRequestError
from fluid_core.study.grid import Cell, config_data, run_folder
from fluid_core.study.settings import StudyEvaluation
from fluid_core.study.toml_text import toml_text

_LAST_LINES = 12
_SECONDS_TO_STOP = 60.0


@attrs.frozen(kw_only=True)
class RunState:
    """How far a run of a study is."""

    cell: Cell
    state: str
    """`measured`, `trained`, `begun` or `missing`."""


@attrs.frozen(kw_only=True)
class FailedRun:
    """A run that did not come to its end, and the last lines of what it printed."""

    name: str
    log: Path
    last_lines: str


def run_states(
    cells: Sequence[Cell], out: Path, evaluation: StudyEvaluation, *, remeasure: bool = False
) -> list[RunState]:
    """The state of every run, none of which changes.

    Raises `CheckpointMismatchError` for a folder that holds a run of other settings: its figures would be reported as
    this study's.
    """
    from fluid_core.study.measuring import is_measured

    states = []
    for cell in cells:
        run = run_folder(out, cell)
        saved = run / "config.json"
        if saved.exists():
            found = config_from_json(saved.read_text(encoding="utf-8"), source=f"configuration {saved}")
            if found != cell.config:
                raise CheckpointMismatchError(
                    f"{run} holds a run with other settings than the study has now. Give another --out, or delete that "
                    "folder."
                )
        if (run / "model").is_dir():
            sweeps = sweeps_at(evaluation, cell)
            measured = not remeasure and is_measured(run, evaluation, sweeps=sweeps)
            states.append(RunState(cell=cell, state="measured" if measured else "trained"))
        else:
            states.append(RunState(cell=cell, state="begun" if saved.exists() else "missing"))
    return states


def sweeps_at(evaluation: StudyEvaluation, cell: Cell) -> bool:
    """Whether a run is measured at other numbers of steps, too."""
    return evaluation.sweep_sizes is None or cell.size in evaluation.sweep_sizes


class StudyProcesses:
    """Runs in processes, `num_jobs` at a time, which share the cores of this one. `note` is told what happens.

    With `seconds` no run is started after that time, and those under way are asked to stop: they save a checkpoint
    where they can, and a later call goes on from the last one. The same happens on Ctrl-C.
    """

    def __init__(
        self,
        out: Path,
        evaluation: StudyEvaluation,
        *,
        num_jobs: int = 1,
        seconds: float | None = None,
        note: Callable[[str], None],
        echo: bool = False,
    ) -> None:
        if num_jobs < 1:
            raise InvalidRequestError(f"Expected one job or more, found {num_jobs}.")
        self._out, self._evaluation, self._num_jobs = out, evaluation, num_jobs
        self._ends = None if seconds is None else time.monotonic() + seconds
        self._note, self._echo = note, echo
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._stopped = False
        self._lock = threading.Lock()

    def bring_to_end(self, states: Sequence[RunState]) -> list[FailedRun]:
        """Train and measure what is not measured yet, in the order given; return the runs that failed.

        Raises `OutputError` if nothing can be written. A SIGTERM ends it as Ctrl-C does, by `KeyboardInterrupt`.
        """
        check_writable(self._out)
        left = [one for one in states if one.state != "measured"]
        timer = self._timer()
        try:
            with _sigterm_interrupts(), ThreadPoolExecutor(self._num_jobs) as pool:
                futures = [pool.submit(self._run, one, f"{n}/{len(left)}") for n, one in enumerate(left, 1)]
                try:
                    failed = [future.result() for future in futures]
                except BaseException:
                    self.stop()
                    pool.shutdown(cancel_futures=True)
                    raise
        finally:
            if timer is not None:
                timer.cancel()
        return [one for one in failed if one is not None]

    @property
    def stopped(self) -> bool:
        """Whether it ended before all was done, because the time was over."""
        return self._stopped

    def stop(self) -> None:
        """Start nothing more, and ask what runs to stop."""
        with self._lock:
            self._stopped = True
            running = list(self._processes.values())
        for process in running:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(_SECONDS_TO_STOP)
            except subprocess.TimeoutExpired:
                process.kill()

    def _timer(self) -> threading.Timer | None:
        if self._ends is None:
            return None
        timer = threading.Timer(max(0.0, self._ends - time.monotonic()), self.stop)
        timer.daemon = True
        timer.start()
        return timer

    def _run(self, state: RunState, place: str) -> FailedRun | None:
        cell = state.cell
        name, run = cell.name, run_folder(self._out, cell)
        config_file = write_config(self._out, cell)
        log = self._out / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "fluid_core.study.one_run", str(config_file), "--out", str(run)]
        command += ["--evaluation", json.dumps(unstructure(self._evaluation))]
        command += ["--sweeps"] if sweeps_at(self._evaluation, cell) else []
        threads = str(max(1, _num_cores() // self._num_jobs))
        started = time.monotonic()
        with log.open("a", encoding="utf-8") as file:
            with self._lock:
                if self._stopped:
                    return None
                self._note(f"{place} {name}: {_BEGINNINGS[state.state]}")
                process = self._processes[name] = subprocess.Popen(
                    command,
                    env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    # Ctrl-C in a terminal reaches this process alone, which then asks the others.
                    start_new_session=True,
                )
            self._copy(process, file, name)
            code = process.wait()
        with self._lock:
            del self._processes[name]
        minutes = (time.monotonic() - started) / 60
        if code == 0:
            self._note(f"{place} {name}: done in {minutes:.1f} minutes")
            return None
        if self.stopped:
            self._note(f"{place} {name}: stopped after {minutes:.1f} minutes, goes on next time")
            return None
        last = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:])
        self._note(f"{place} {name}: failed, see {log}")
        return FailedRun(name=name, log=log, last_lines=last)

    def _copy(self, process: "subprocess.Popen[str]", file: IO[str], name: str) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            file.flush()
            if self._echo:
                self._note(f"  {line.rstrip()}" if self._num_jobs == 1 else f"  {name}: {line.rstrip()}")


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """For the length of a block SIGTERM is Ctrl-C: the runs, which have sessions of their own, must not be left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


_BEGINNINGS = {"missing": "starts", "begun": "goes on", "trained": "is measured"}


def write_config(out: Path, cell: Cell) -> Path:
    """The file with which anyone can train a run alone: `fluid train FILE --out DIR`."""
    path = out / "configs" / f"{cell.name}.toml"
    comment = f"Run {cell.name} of a study.\nfluid train {path.name} --out {cell.name}"
    write_bytes(path, toml_text(config_data(cell.config), comment=comment).encode())
    return path


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
