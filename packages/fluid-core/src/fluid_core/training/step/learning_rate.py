"""Learning rate as a function of the step."""

import math
from typing import Literal


def learning_rate_factor(
    step: int,
    *,
    num_steps: int,
    warmup_steps: int,
    schedule: Literal["constant", "cosine"],
    share_of_time: float = 0.0,
) -> float:
    """Share of the peak learning rate at `step` (from 0): a linear warm-up, then constant or a half cosine to zero.

    With a time limit, `share_of_time` says how much of it has passed (0 to 1): the cosine follows the steps or the
    time, whichever is further along. The paper trains continuous tokens at a constant rate and discrete ones with the
    cosine.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if schedule == "constant":
        return 1.0
    progress = max((step - warmup_steps) / max(1, num_steps - warmup_steps), share_of_time)
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, progress)))
