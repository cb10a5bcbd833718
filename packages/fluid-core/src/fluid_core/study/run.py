"""A study from its settings to its report."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

import attrs

from fluid_core.catalog import ComponentCatalog
from fluid_core.errors import InvalidRequestError
from fluid_core.study.grid import Cell, study_cells
from fluid_core.study.jobs import FailedRun, StudyProcesses, run_states
from fluid_core.study.report import write_report
from fluid_core.study.settings import StudySettings


@attrs.frozen(kw_only=True)
class StudyOutcome:
    """What a call of `run_study` left behind."""

    written: tuple[Path, ...]
    """The report's files."""

    failed: tuple[FailedRun, ...]
    stopped: bool
    """Whether the time was over before all was done."""


def run_study(
    study: StudySettings,
    out: Path,
    *,
    only: Sequence[str] = (),
    num_jobs: int = 1,
    seconds: float | None = None,
    remeasure: bool = False,
    note: Callable[[str], None],
    echo: bool = False,
    catalog: ComponentCatalog | None = None,
) -> StudyOutcome:
    """Train and measure the runs of a study that are not done, and write the report of all that are.

    `only` names runs by patterns such as `*--xs--*`; `note` is told what happens, with `echo` also what runs print.
    Raises `ConfigurationError` and what checking a configuration raises before anything is trained,
    `CheckpointMismatchError` if `out` holds runs of other settings, and what `write_report` raises.
    """
    cells = study_cells(study, catalog)
    processes = StudyProcesses(out, study.evaluation, num_jobs=num_jobs, seconds=seconds, note=note, echo=echo)
    states = run_states(chosen_cells(cells, only), out, study.evaluation, remeasure=remeasure)
    failed = processes.bring_to_end(states)
    return StudyOutcome(
        written=tuple(write_report(study, cells, out, catalog)), failed=tuple(failed), stopped=processes.stopped
    )


def chosen_cells(cells: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """Runs whose names fit one of the patterns; all without patterns. Raises `InvalidRequestError` if none does."""
    chosen = [cell for cell in cells if not patterns or any(fnmatch(cell.name, pattern) for pattern in patterns)]
    if not chosen:
        names = ", ".join(cell.name for cell in cells[:4])
        raise InvalidRequestError(f"Expected a pattern that names runs, found {list(patterns)}. Runs are {names}, ...")
    return chosen
