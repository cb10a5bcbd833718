"""`fluid study`: variants by sizes by seeds from one file, trained, measured and reported."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fluid_core.study.grid import Cell
    from fluid_core.study.jobs import RunState
    from fluid_core.study.settings import StudySettings


def study(
    file: Annotated[Path, typer.Argument(help="A TOML file; see examples/configs/study.toml.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to it, such as budget.images=20000 seeds=[0,1].", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the study; by default runs/ and the file's name.", show_default=False)
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Runs at a time; they share the cores, unless OMP_NUM_THREADS says otherwise.")
    ] = 1,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN",
            help="Only runs of this name, such as '*--xs--*'; may be given again. The report is of all that is there.",
            show_default=False,
        ),
    ] = None,
    hours: Annotated[
        float | None, typer.Option(help="Stop after this time; the next call goes on.", show_default=False)
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="List the runs and how far they are, and do nothing.")] = (
        False
    ),
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Time a few steps of each, say the hours, and do nothing else.")
    ] = False,
    remeasure: Annotated[bool, typer.Option("--remeasure", help="Measure finished runs again.")] = False,
    report_only: Annotated[bool, typer.Option("--report", help="Write the report of what is there, and no more.")] = (
        False
    ),
    verbose: Annotated[bool, typer.Option("--verbose", help="Also show what the runs print.")] = False,
) -> None:
    """Train and compare variants of a model in several sizes: tables, plots, fits, and what the paper found.

    Finished runs are skipped and stopped ones go on, so that a study can be run in pieces: start it again.
    """
    from fluid_core.study.grid import study_cells
    from fluid_core.study.jobs import run_states
    from fluid_core.study.report import write_report
    from fluid_core.study.run import chosen_cells, run_study
    from fluid_core.study.settings import load_study

    settings = load_study(file, overrides)
    folder = out or Path("runs") / file.stem
    if estimate or status:
        cells = chosen_cells(study_cells(settings), only or [])
        if estimate:
            _estimate(settings, cells, jobs)
        else:
            _status(run_states(cells, folder, settings.evaluation, remeasure=remeasure))
        return
    if report_only:
        for path in write_report(settings, study_cells(settings), folder):
            typer.echo(path)
        return
    outcome = run_study(
        settings,
        folder,
        only=only or [],
        num_jobs=jobs,
        seconds=None if hours is None else hours * 3600,
        remeasure=remeasure,
        note=lambda text: typer.echo(text, err=True),
        echo=verbose,
    )
    for path in outcome.written:
        typer.echo(path)
    for one in outcome.failed:
        typer.secho(f"\n{one.name} failed ({one.log}):\n{one.last_lines}", err=True, fg=typer.colors.RED)
    if outcome.stopped:
        typer.echo("Stopped before all runs were done. Start it again to go on.", err=True)
    if outcome.failed:
        raise typer.Exit(1)


def _status(states: "list[RunState]") -> None:
    for one in states:
        typer.echo(f"{one.state:9} {one.cell.name}")
    counts = {state: sum(one.state == state for one in states) for state in dict.fromkeys(one.state for one in states)}
    typer.echo(f"{len(states)} runs: {', '.join(f'{count} {state}' for state, count in counts.items())}")


def _estimate(settings: "StudySettings", cells: "list[Cell]", jobs: int) -> None:
    from fluid_core.study.estimate import CellCost, estimate

    def tell(cost: CellCost) -> None:
        typer.echo(
            f"{cost.cell.variant:20} {cost.cell.size:8} {cost.parameters / 1e6:6.2f}M "
            f"{cost.images_per_second:6.0f} images/s  {60 * cost.training_hours:6.1f} min training  "
            f"{60 * cost.measuring_hours:5.1f} min measuring"
        )

    costs = estimate(cells, settings.evaluation, note=tell)
    hours = sum(cost.hours for cost in costs)
    typer.echo(
        f"{len(costs)} runs, {hours:.1f} hours one after the other; with --jobs {jobs} about {hours / jobs:.1f} hours, "
        "if each then has the threads and the memory bandwidth that it had here."
    )
