"""Causal random order: any permutation, with causal attention and a key/value cache.

Every row of the sequence names the position it predicts next, so that one model learns all permutations (sigma-GPT,
arXiv 2404.09562). Several tokens a step are drawn from the cache as RandAR (arXiv 2412.01827) and ARPG (arXiv
2503.10568) do for discrete tokens: the last known token is asked about several positions at once, and each answer is
that of some permutation of the training.
"""

import torch
from jaxtyping import Bool
from torch import Tensor

from fluid_core.exchange import AttentionPattern, TrainedPermutations, TrainingView
from fluid_core.keyed_random import KeyedRandom
from fluid_core.planned_steps import PlannedSteps
from fluid_core.token_space import Grid
from fluid_orders.options import CausalRandomOrderOptions
from fluid_orders.step_sizes import steps_of
from fluid_orders.unknown_positions import count_unknown, unknown_by_rank


class CausalRandomOrder:
    """A GPT over shuffled tokens: each image has a permutation of its own, in training and in generation."""

    attention = AttentionPattern.CAUSAL
    trained_permutations = TrainedPermutations.ANY

    def __init__(self, options: CausalRandomOrderOptions | None = None) -> None:
        self.options = options or CausalRandomOrderOptions()

    def training_view(
        self, batch_size: int, grid: Grid, *, generator: torch.Generator, device: torch.device
    ) -> TrainingView:
        """A random permutation of each image, of which every token is predicted from those before it."""
        order = torch.rand(batch_size, grid.length, generator=generator).argsort(dim=1).to(device)
        return TrainingView(order=order, num_known=torch.zeros_like(order[:, 0]))

    def generation(
        self, unknown: Bool[Tensor, "batch length"], grid: Grid, *, num_steps: int | None, random: KeyedRandom
    ) -> PlannedSteps:
        """A permutation of each image's unknown positions, cut as the options say.

        Any tokens may be known: they come first in the sequence. An image's permutation depends on its own key and its
        own mask alone. Raises `InvalidRequestError` for a `num_steps` below one or above the number of unknown
        positions.
        """
        num_unknown = count_unknown(unknown, grid)
        sizes = steps_of(self.options, num_unknown, num_steps)
        return PlannedSteps(unknown_by_rank(unknown, random.uniform((grid.length,)), num_unknown), step_sizes=sizes)
