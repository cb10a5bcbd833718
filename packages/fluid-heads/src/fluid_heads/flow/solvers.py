"""Following a velocity from noise to a token: the methods of Euler and Heun."""

from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor

from fluid_heads.flow.options import Solver

Velocity = Callable[[int, Tensor], Tensor]
"""Velocity at time number `step` of a grid, for the tokens `x` (tokens, channels)."""


def num_evaluations(num_steps: int, solver: Solver) -> int:
    """How often a velocity is evaluated: once per step by Euler; Heun adds one for every step but the last."""
    return num_steps if solver == "euler" else 2 * num_steps - 1


def integrate(
    velocity: Velocity, times: Sequence[float], initial: Float[Tensor, "tokens channels"], *, solver: Solver
) -> Float[Tensor, "tokens channels"]:
    """Where `initial`, at the first of the `times`, has moved with `velocity` by the last of them.

    Euler moves with the velocity at the beginning of a step. Heun moves with the mean of that one and the velocity at
    the point that Euler would reach. The velocity is never evaluated at the last of the times, where a token is clean
    and nothing is left to predict from, so the last step is Euler's with either solver: as in the flow-matching
    schedulers of diffusers. Nothing is read back from the device.
    """
    x = initial
    last = len(times) - 2
    for step in range(last + 1):
        length = times[step + 1] - times[step]
        slope = velocity(step, x)
        if solver == "heun" and step < last:
            slope = 0.5 * (slope + velocity(step + 1, x + length * slope))
        x = x + length * slope
    return x
