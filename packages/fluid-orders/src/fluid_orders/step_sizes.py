"""How many tokens each generation step predicts: the cuts of an order."""

import math
from collections.abc import Callable
from typing import get_args

import torch
from jaxtyping import Int
from torch import Tensor

from fluid_core.errors import InvalidRequestError, listing
from fluid_orders.options import StepCurve, StepOptions

DEFAULT_NUM_STEPS = 64
"""Generation steps of the paper, for 256 tokens (section 4)."""

# Added to a share of the tokens, so that a product that is a whole number in exact arithmetic is not rounded below it.
# The cosine goes without: its sizes are the predecessor's to the last token.
_ROUNDING = 1e-12

_CURVES: dict[str, Callable[[int, int], float]] = {
    "cosine": lambda step, num_steps: math.cos(math.pi / 2 * step / num_steps),
    "arccos": lambda step, num_steps: math.acos(step / num_steps) * 2 / math.pi + _ROUNDING,
    "linear": lambda step, num_steps: 1.0 - (step / num_steps) ** 2 + _ROUNDING,
    "constant": lambda step, num_steps: 1.0 - step / num_steps + _ROUNDING,
}
"""Share of the tokens still unknown after a step. No curve lies below the straight line from 1 to 0."""


def steps_of(options: StepOptions, num_unknown: int, num_steps: int | None) -> tuple[int, ...]:
    """Step sizes for a request of `num_steps`, or without one for what the options say.

    Without a request there are as many steps as the options name, 64 if they name none, and never more than unknown
    positions. Nothing unknown is a course of no steps. Raises `InvalidRequestError` for fewer than one step, more
    steps than positions, and for sizes given one by one that do not fit the request or the unknown positions.
    """
    if isinstance(options.steps, tuple):
        return _explicit(options.steps, num_unknown, num_steps)
    if num_steps is None:
        num_steps = min(options.num_steps or DEFAULT_NUM_STEPS, num_unknown)
    return step_sizes_on_curve(num_unknown, num_steps, options.steps) if num_steps or num_unknown else ()


def step_sizes_on_curve(num_unknown: int, num_steps: int, curve: StepCurve = "cosine") -> tuple[int, ...]:
    """Sizes of `num_steps` steps that follow a curve, in tokens: each at least 1, together `num_unknown`.

    - `cosine`: few tokens first, many late (MaskGIT, arXiv 2202.04200; the paper takes 64 steps for 256 tokens);
    - `arccos`: the cosine with its axes swapped: nearly even at first, and very many in the last steps;
    - `linear`: sizes grow in proportion to the number of the step (what stays unknown is 1 - t squared);
    - `constant`: the same number in every step, up to rounding (what stays unknown falls in a straight line).

    After step k of N, floor(num_unknown * curve(k / N)) tokens stay unknown, but always at least one fewer than before;
    the last step takes the rest. Raises `InvalidRequestError` for fewer than one step, more steps than tokens, or an
    unknown curve.
    """
    check_num_steps(num_unknown, num_steps)
    if curve not in _CURVES:
        raise InvalidRequestError(
            f"Expected one of the curves {listing(get_args(StepCurve))} for step sizes, found {curve!r}."
        )
    remaining = unknown_after_steps(torch.tensor([num_unknown]), num_steps, curve)[0].tolist()
    return tuple(before - after for before, after in zip([num_unknown, *remaining], remaining, strict=False))


def unknown_after_steps(
    num_unknown: Int[Tensor, "lengths"], num_steps: int, curve: StepCurve
) -> Int[Tensor, "lengths steps"]:
    """How many of each number of unknown tokens are left after each step: strictly falling, zero after the last.

    Every length must be `num_steps` or more. The steps still to come always find a token each, since no curve lies
    below the straight line.
    """
    steps = torch.arange(1, num_steps + 1)
    shares = [_CURVES[curve](step, num_steps) for step in range(1, num_steps + 1)]
    limits = (num_unknown[:, None] * torch.tensor(shares, dtype=torch.float64)).floor().long()
    limits[:, -1] = 0
    # remaining_k = min(remaining_(k-1) - 1, limit_k) is, with k added on both sides, a running minimum.
    lowest = (limits + steps).cummin(dim=1).values
    return torch.minimum(lowest, num_unknown[:, None]) - steps


def cosine_step_sizes(num_unknown: int, num_steps: int) -> tuple[int, ...]:
    """`step_sizes_on_curve` of the cosine: what the paper's random order takes."""
    return step_sizes_on_curve(num_unknown, num_steps, "cosine")


def check_num_steps(num_unknown: int, num_steps: int) -> None:
    """Raise `InvalidRequestError` unless `num_unknown` positions can be spread over `num_steps` steps."""
    if num_steps < 1:
        raise InvalidRequestError(
            f"Expected at least 1 generation step, found num_steps={num_steps}. Leave it out for the order's default."
        )
    if num_steps > num_unknown:
        raise InvalidRequestError(
            f"Expected at most as many generation steps as unknown tokens, found num_steps={num_steps} for "
            f"{num_unknown} unknown tokens: some steps would have nothing to predict. Use a smaller "
            "num_steps, or leave it out for the order's default."
        )


def _explicit(sizes: tuple[int, ...], num_unknown: int, num_steps: int | None) -> tuple[int, ...]:
    if num_steps is not None:
        check_num_steps(num_unknown, num_steps)
    if num_unknown == 0:
        return ()
    if num_steps not in (None, len(sizes)):
        raise InvalidRequestError(
            f"The order's step sizes are given one by one and take {len(sizes)} steps, found num_steps={num_steps}: "
            "leave it out, or choose a curve such as steps = 'cosine'."
        )
    if sum(sizes) != num_unknown:
        raise InvalidRequestError(
            f"The order's step sizes are given one by one and predict {sum(sizes)} tokens, found {num_unknown} unknown "
            "ones: give sizes with that sum, or choose a curve such as steps = 'cosine'."
        )
    return sizes
