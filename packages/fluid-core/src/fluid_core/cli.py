"""The `fluid` program: puts the commands together and turns errors into messages.

Exit codes: 0 for success, 1 for an error that Fluid explains in a message, 2 for a command line that can not
be understood, 130 for an interruption with Ctrl-C. Genuine bugs keep their traceback.
"""

from typing import Annotated

import typer

from fluid_core import __version__
from fluid_core.commands.cache_build import build
from fluid_core.commands.cache_check import check
from fluid_core.commands.components import components
from fluid_core.commands.edit import edit
from fluid_core.commands.sample import sample
from fluid_core.commands.tokenizer_measure import measure
from fluid_core.commands.tokenizer_report import report
from fluid_core.commands.tokenizer_train import train_tokenizer
from fluid_core.commands.train import train
from fluid_core.errors import FluidError

app = typer.Typer(
    name="fluid",
    help="Autoregressive image generation from parts that mix.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command()(components)
app.command()(train)
app.command()(sample)
app.command()(edit)

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


def main() -> None:
    """Run the program. Always ends with `SystemExit`, except for genuine bugs."""
    try:
        app()
    except FluidError as error:
        lines = [str(error), *getattr(error, "__notes__", ())]
        typer.secho("\n".join(lines), fg=typer.colors.RED, err=True)
        raise SystemExit(1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
