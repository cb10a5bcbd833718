"""How many tokens each generation step predicts: the cuts of an order."""

import math

from fluid_core.errors import InvalidRequestError


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


def cosine_step_sizes(num_unknown: int, num_steps: int) -> tuple[int, ...]:
    """Sizes of `num_steps` steps that follow MaskGIT's cosine schedule: few tokens first, many at the end.

    After step i (from 0) of N, floor(num_unknown * cos(pi/2 * (i+1) / N)) tokens stay unknown, but always at
    least one fewer than before; the last step takes the rest (the paper takes 64 steps for 256 tokens). The
    sizes sum to `num_unknown` and none is zero: the cosine lies above the straight line from 1 to 0, so that
    the steps still to come always find a token each. Raises `InvalidRequestError` for fewer than one step or
    more steps than tokens.
    """
    check_num_steps(num_unknown, num_steps)
    sizes = []
    remaining = num_unknown
    for step in range(1, num_steps):
        still_unknown = min(remaining - 1, math.floor(num_unknown * math.cos(math.pi / 2 * step / num_steps)))
        sizes.append(remaining - still_unknown)
        remaining = still_unknown
    return (*sizes, remaining)
