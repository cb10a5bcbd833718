"""The straight path from token to noise, the times along it, and what the two ways to predict its velocity share.

At time t in [0, 1] a token x0 has become x_t = (1 - t) x0 + t noise; its velocity dx/dt is noise - x0 at every time
(Liu et al., arXiv 2209.03003). A model of the mean velocity at (x, t) turns noise into tokens when its differential
equation is followed from t = 1 back to t = 0.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.keyed_random import KeyedRandom
from fluid_heads.flow.options import MOST_SAMPLING_STEPS

TIMESTEPS_PER_UNIT = 1000.0
"""What times are multiplied by for the network, whose embedding resolves timesteps from 0 to 1000."""

SMALLEST_DIVISOR = 0.05
"""Where a predicted clean token stands for a velocity, (x - x0) / t, the divisor is at least this (Li and He, arXiv
2511.13720).

In the loss, errors of the token would otherwise weigh 1 / t^2 without bound. Sampling divides as the loss does: on a
toy problem with two clusters, 100 steps that divided by t itself moved a cluster's mean from 1.5 to 1.6 and narrowed
it by a sixth, since what the network says of tokens with hardly any noise is hardly trained; with the limit the mean
stayed at 1.5 for 10 to 400 steps.
"""


def noisy_token(
    clean: Float[Tensor, "*rows channels"], noise: Float[Tensor, "*rows channels"], times: Float[Tensor, "*rows"]
) -> Float[Tensor, "*rows channels"]:
    """x_t, on the straight line between token and noise."""
    share = times[..., None]
    return (1.0 - share) * clean + share * noise


def logit_normal_times(
    random: KeyedRandom, num_draws: int, *, mean: float, deviation: float
) -> Float[Tensor, "tokens draws"]:
    """Times in [0, 1] whose logit is normal: the middle of the way, where prediction is hard, is trained most."""
    return torch.sigmoid(mean + deviation * random.normal((num_draws,)))


def time_grid(num_steps: int, *, shift: float = 1.0) -> list[float]:
    """`num_steps + 1` falling times from 1 to 0, evenly spaced before they are shifted.

    Raises `InvalidRequestError` for a number of steps outside 1 to 1000.
    """
    if not 1 <= num_steps <= MOST_SAMPLING_STEPS:
        raise InvalidRequestError(
            f"Expected 1 to {MOST_SAMPLING_STEPS} sampling steps, found {num_steps}. Choose a number in that range."
        )
    times = [1.0 - step / num_steps for step in range(num_steps + 1)]
    return [shift * time / (1.0 + (shift - 1.0) * time) for time in times]
