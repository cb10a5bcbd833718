"""Random order: any positions next, each prediction seeing all known tokens (paper, figure 2b)."""

import math

import torch
from jaxtyping import Bool
from torch import Tensor

from fluid_core.exchange import AttentionPattern, TrainedPermutations, TrainingView
from fluid_core.keyed_random import KeyedRandom
from fluid_core.planned_steps import PlannedSteps
from fluid_core.token_space import Grid
from fluid_orders.options import RandomOrderOptions
from fluid_orders.step_sizes import cosine_step_sizes
from fluid_orders.unknown_positions import count_unknown

DEFAULT_NUM_STEPS = 64
"""Generation steps of the paper, for 256 tokens."""


class RandomOrder:
    """A masked model: a random subset is known, all other tokens are predicted, every one from all known."""

    attention = AttentionPattern.BIDIRECTIONAL
    trained_permutations = TrainedPermutations.ANY

    def __init__(self, options: RandomOrderOptions | None = None) -> None:
        self.options = options or RandomOrderOptions()

    def training_view(
        self, batch_size: int, grid: Grid, *, generator: torch.Generator, device: torch.device
    ) -> TrainingView:
        """A random permutation and a mask ratio of its own for every sample.

        With r uniform in [0, 1), the share of predicted tokens is cos(pi/2 * r), 2/pi on average (MaskGIT's
        cosine schedule, which the paper takes over). Their number is rounded up: at least one token is
        predicted, and the empty canvas, from which every generation starts, is met in training.
        """
        order = torch.rand(batch_size, grid.length, generator=generator).argsort(dim=1)
        share = torch.cos(math.pi / 2 * torch.rand(batch_size, generator=generator))
        num_predicted = (share * grid.length).ceil().long().clamp_(1, grid.length)
        return TrainingView(order=order.to(device), num_known=(grid.length - num_predicted).to(device))

    def generation(
        self, unknown: Bool[Tensor, "batch length"], grid: Grid, *, num_steps: int | None, random: KeyedRandom
    ) -> PlannedSteps:
        """A permutation of each image's unknown positions, cut by the cosine schedule.

        An image's permutation depends on its own key and its own mask alone. Without `num_steps` there are as
        many steps as the options say, 64 unless set, and never more than unknown positions. Raises
        `InvalidRequestError` for a `num_steps` below one or above the number of unknown positions.
        """
        num_unknown = count_unknown(unknown, grid)
        if num_steps is None:
            num_steps = min(self.options.num_steps or DEFAULT_NUM_STEPS, num_unknown)
        # An image with nothing left to predict is a course of no steps, not an error.
        step_sizes = cosine_step_sizes(num_unknown, num_steps) if num_steps or num_unknown else ()
        ranks = random.uniform((grid.length,)).to(unknown.device)
        order = ranks.masked_fill(~unknown, math.inf).argsort(dim=1, stable=True)
        return PlannedSteps(order[:, :num_unknown], step_sizes=step_sizes)
