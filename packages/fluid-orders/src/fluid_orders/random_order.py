"""Random order: any positions next, each prediction seeing all known tokens (paper, figure 2b)."""

import torch
from jaxtyping import Bool
from torch import Tensor

from fluid_core.exchange import AttentionPattern, TrainedPermutations, TrainingView
from fluid_core.keyed_random import KeyedRandom
from fluid_core.planned_steps import PlannedSteps
from fluid_core.token_space import Grid
from fluid_orders.masked_training import masked_view
from fluid_orders.options import RandomOrderOptions
from fluid_orders.step_sizes import steps_of
from fluid_orders.unknown_positions import count_unknown, unknown_by_rank


class RandomOrder:
    """A masked model: a random subset is known, all other tokens are predicted, every one from all known."""

    attention = AttentionPattern.BIDIRECTIONAL
    trained_permutations = TrainedPermutations.ANY

    def __init__(self, options: RandomOrderOptions | None = None) -> None:
        self.options = options or RandomOrderOptions()

    def training_view(
        self, batch_size: int, grid: Grid, *, generator: torch.Generator, device: torch.device
    ) -> TrainingView:
        """A random permutation and a cosine mask ratio of its own for every sample: see `masked_view`."""
        return masked_view(batch_size, grid, generator=generator, device=device)

    def generation(
        self, unknown: Bool[Tensor, "batch length"], grid: Grid, *, num_steps: int | None, random: KeyedRandom
    ) -> PlannedSteps:
        """A permutation of each image's unknown positions, cut as the options say.

        An image's permutation depends on its own key and its own mask alone. Raises `InvalidRequestError` for a
        `num_steps` below one or above the number of unknown positions.
        """
        num_unknown = count_unknown(unknown, grid)
        sizes = steps_of(self.options, num_unknown, num_steps)
        return PlannedSteps(unknown_by_rank(unknown, random.uniform((grid.length,)), num_unknown), step_sizes=sizes)
