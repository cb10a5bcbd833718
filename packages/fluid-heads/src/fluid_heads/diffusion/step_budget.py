"""How many steps a token gets: many for the first tokens of an image, few for the last."""

from fluid_core.errors import InvalidRequestError


def num_steps_at(progress: float, *, num_steps: int, final_num_steps: int | None) -> int:
    """Steps of the reverse process when a share `progress` (0 to 1) of an image's tokens is known.

    Falls linearly from `num_steps` for the first tokens to `final_num_steps` where all are known, rounded; None spends
    `num_steps` on all of them. The more tokens are known, the less is left open about the next one, and the fewer
    steps it takes to draw it (DiSA, arXiv 2505.20297).

    Raises `InvalidRequestError` for a progress outside 0 to 1 where it matters.
    """
    if final_num_steps is None:
        return num_steps
    if not 0.0 <= progress <= 1.0:
        raise InvalidRequestError(
            f"Expected a progress from 0 to 1, the share of an image's tokens that is known, found {progress}. "
            "It decides how many sampling steps a token gets."
        )
    return round(num_steps + (final_num_steps - num_steps) * progress)
