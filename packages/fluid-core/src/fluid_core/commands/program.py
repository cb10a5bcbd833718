"""The commands of the `fluid` program, put together."""

from typing import Annotated

import typer

from fluid_core import __version__
from fluid_core.commands.cache_build import build
from fluid_core.commands.cache_check import check
from fluid_core.commands.components import list_components
from fluid_core.commands.diagnose import diagnose
from fluid_core.commands.edit import edit
from fluid_core.commands.evaluate import evaluate_app
from fluid_core.commands.fit import fit
from fluid_core.commands.plan import plan
from fluid_core.commands.sample import sample
from fluid_core.commands.study import study
from fluid_core.commands.tokenizer_measure import measure
from fluid_core.commands.tokenizer_report import report
from fluid_core.commands.tokenizer_train import train_tokenizer
from fluid_core.commands.train import train

app = typer.Typer(
    name="fluid",
    help="Autoregressive image generation from parts that mix.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(plan)
app.command()(train)
app.command()(sample)
app.command()(edit)
app.command()(diagnose)
app.command()(fit)
app.command()(study)

tokenizer_app = typer.Typer(name="tokenizer", help="Train, measure and compare tokenizers.", no_args_is_help=True)
tokenizer_app.command("train")(train_tokenizer)
tokenizer_app.command("measure")(measure)
tokenizer_app.command("report")(report)
app.add_typer(tokenizer_app)

cache_app = typer.Typer(
    name="cache", help="Encode a data set once, and train from what was stored.", no_args_is_help=True
)
cache_app.command("build")(build)
cache_app.command("check")(check)
app.add_typer(cache_app)

app.add_typer(evaluate_app)


# Its own parser reads the arguments: see `fluid_core.cli`.
@app.command(add_help_option=False, context_settings={"ignore_unknown_options": True})
def components(arguments: Annotated[list[str] | None, typer.Argument(hidden=True)] = None) -> None:
    """List the installed components, and every plugin that failed and why."""
    list_components(arguments or [])


def _print_version(wanted: bool) -> bool:
    # What a callback returns becomes the option's value.
    if wanted:
        typer.echo(f"fluid {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def program(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Autoregressive image generation from parts that mix."""
