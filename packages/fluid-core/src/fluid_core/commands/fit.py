"""`fluid fit`: power laws through anyone's figures."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class LawName(StrEnum):
    """Which law is fitted, as a choice of the command line."""

    PLAIN = "plain"
    FLOOR = "floor"
    BOTH = "both"


def fit(
    figures: Annotated[
        Path,
        typer.Argument(help="A JSON or CSV file with a row for each model, such as a study's report.json."),
    ],
    x: Annotated[str, typer.Option("--x", help="Column of sizes, or of images seen, or of FLOPs.")] = "parameters",
    y: Annotated[str, typer.Option("--y", help="Column of what falls with it.")] = "validation_loss",
    law: Annotated[
        LawName, typer.Option(help="a * N^-b, the same above an irreducible floor, or one after the other.")
    ] = LawName.PLAIN,
    by: Annotated[
        str | None,
        typer.Option(
            help="Column whose values are fitted apart; by default 'variant' where there is one.", show_default=False
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Only rows with this value; may be given again.", show_default=False),
    ] = None,
    hold_out_largest: Annotated[
        bool, typer.Option("--hold-out-largest", help="Also fit without the largest size, and predict it.")
    ] = False,
    score: Annotated[
        str | None,
        typer.Option(help="A column to correlate with y, such as scores.overall.", show_default=False),
    ] = None,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    out: Annotated[
        Path | None, typer.Option(help="Folder for fit.json and fit.png; by default nothing is written.")
    ] = None,
) -> None:
    """Fit a power law to figures of models of different sizes: exponent, interval, and how well it foresees.

    Several rows of one size, such as those of several seeds, are averaged.
    """
    from fluid_core.configuration.overrides import named_values
    from fluid_core.evaluation.fit_run import FitRequest, fit_figures, write_fits
    from fluid_core.evaluation.fit_text import fit_lines

    request = FitRequest(
        figures=figures,
        x=x,
        y=y,
        laws=(LawName.PLAIN.value, LawName.FLOOR.value) if law is LawName.BOTH else (law.value,),
        by=by,
        where=named_values(where or []),
        hold_out_largest=hold_out_largest,
        score=score,
        confidence=confidence,
    )
    groups = fit_figures(request)
    for group in groups:
        for line in fit_lines(group, request):
            typer.echo(line)
    if out is not None:
        for path in write_fits(groups, request, out):
            typer.echo(path)
