"""Fixed order: a path over the grid that the user gives, by name or position by position."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import AttentionPattern, TrainedPermutations, TrainingView
from fluid_core.keyed_random import KeyedRandom
from fluid_core.planned_steps import PlannedSteps
from fluid_core.token_space import Grid
from fluid_orders.masked_training import masked_view
from fluid_orders.named_paths import named_path
from fluid_orders.options import FixedOrderOptions
from fluid_orders.step_sizes import steps_of
from fluid_orders.unknown_positions import count_unknown, unknown_by_rank


class FixedOrder:
    """A masked model, trained as the random order, that fills every picture along the same path.

    It trains on all permutations, not on the path alone: so it can be asked for any other order as well, may start from
    any known tokens, and a path can be tried on a model that exists already.
    """

    attention = AttentionPattern.BIDIRECTIONAL
    trained_permutations = TrainedPermutations.ANY

    def __init__(self, options: FixedOrderOptions | None = None) -> None:
        self.options = options or FixedOrderOptions()

    def path(self, grid: Grid) -> Int[Tensor, "length"]:
        """All positions in the order they are visited. Raises `InvalidRequestError` for a list of another length."""
        positions = self.options.positions
        if isinstance(positions, str):
            return named_path(positions, grid)
        if len(positions) != grid.length:
            raise InvalidRequestError(
                f"The fixed order was given {len(positions)} positions, and the model's grid of {grid.height} x "
                f"{grid.width} tokens has {grid.length}: name each position from 0 to {grid.length - 1} once."
            )
        return torch.tensor(positions)

    def training_view(
        self, batch_size: int, grid: Grid, *, generator: torch.Generator, device: torch.device
    ) -> TrainingView:
        """A random permutation and a cosine mask ratio of its own for every sample: see `masked_view`.

        Raises `InvalidRequestError` for a path of another length than the grid: before a model is trained, not after.
        """
        self.path(grid)
        return masked_view(batch_size, grid, generator=generator, device=device)

    def generation(
        self,
        unknown: Bool[Tensor, "batch length"],
        grid: Grid,
        *,
        num_steps: int | None,
        random: KeyedRandom,  # noqa: ARG002  (the path is fixed)
    ) -> PlannedSteps:
        """The unknown positions of each image along the path, cut as the options say.

        Raises `InvalidRequestError` for a `num_steps` below one or above the number of unknown positions, and for a
        path of another length than the grid.
        """
        num_unknown = count_unknown(unknown, grid)
        sizes = steps_of(self.options, num_unknown, num_steps)
        ranks = self.path(grid).argsort()[None]
        return PlannedSteps(unknown_by_rank(unknown, ranks, num_unknown), step_sizes=sizes)
