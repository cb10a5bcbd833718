"""The `fluid` program: finds the command and turns errors into messages.

Exit codes: 0 for success, 1 for an error that Fluid explains in a message, 2 for a command line that can not
be understood, 130 for an interruption with Ctrl-C, 143 for a training that SIGTERM asked to end and that can be
resumed. Genuine bugs keep their traceback.
"""

import sys

from fluid_core.errors import FluidError, RunStoppedError


def main() -> None:
    """Run the program. Always ends with `SystemExit`, except for genuine bugs."""
    try:
        if sys.argv[1:2] == ["components"]:
            # Asked for often, and by programs: reading the command line as the others do takes longer than the answer.
            from fluid_core.commands.components import list_components

            list_components(sys.argv[2:])
            raise SystemExit(0)
        from fluid_core.commands.program import app

        app()
    except FluidError as error:
        from rich.console import Console

        text = "\n".join([str(error), *getattr(error, "__notes__", ())])
        Console(stderr=True).print(text, style="red", markup=False, highlight=False, soft_wrap=True)
        raise SystemExit(error.exit_code if isinstance(error, RunStoppedError) else 1) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
