"""Several processes go through a step together, or stop together with one message."""

from collections.abc import Callable
from typing import TypeVar

import typer

from fluid_core.errors import FluidError
from fluid_core.training.processes import Processes

T = TypeVar("T")


def together(processes: Processes, step: Callable[[], T]) -> T:
    """What `step` returns in this process, once all have done it.

    An error in any process ends all: one process says what went wrong, and nobody waits for those that are gone. Raises
    `FluidError` in a process that is alone, and `SystemExit` where there are several.
    """
    if processes.count == 1:
        return step()
    result, problem = None, ""
    try:
        result = step()
    except FluidError as error:
        problem = "\n".join([str(error), *getattr(error, "__notes__", ())])
    problems = processes.gather_json(problem)
    if any(problems):
        if processes.is_first:
            typer.secho(next(one for one in problems if one), fg=typer.colors.RED, err=True)
        # The first to leave takes the others down with it: not before the message is out.
        processes.leave()
        raise SystemExit(1)
    return result  # type: ignore[return-value]
