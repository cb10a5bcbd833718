"""Raster order: row by row from the top left, each token seeing the ones before it (paper, figure 2a)."""

import torch
from jaxtyping import Bool
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import AttentionPattern, TrainedPermutations, TrainingView
from fluid_core.keyed_random import KeyedRandom
from fluid_core.planned_steps import PlannedSteps
from fluid_core.token_space import Grid
from fluid_orders.options import RasterOrderOptions
from fluid_orders.unknown_positions import count_unknown


class RasterOrder:
    """An ordinary GPT over tokens: one fixed permutation, causal attention, one token a step."""

    attention = AttentionPattern.CAUSAL
    trained_permutations = TrainedPermutations.FIXED

    def __init__(self, options: RasterOrderOptions | None = None) -> None:
        self.options = options or RasterOrderOptions()

    def training_view(
        self,
        batch_size: int,
        grid: Grid,
        *,
        generator: torch.Generator,  # noqa: ARG002  (nothing here is random)
        device: torch.device,
    ) -> TrainingView:
        """Every token is predicted, from those before it in raster order. Draws nothing from `generator`."""
        return TrainingView(
            order=torch.arange(grid.length, device=device).repeat(batch_size, 1),
            num_known=torch.zeros(batch_size, dtype=torch.int64, device=device),
        )

    def generation(
        self,
        unknown: Bool[Tensor, "batch length"],
        grid: Grid,
        *,
        num_steps: int | None,
        random: KeyedRandom,  # noqa: ARG002  (the order is fixed)
    ) -> PlannedSteps:
        """One token a step, down the picture.

        The unknown positions must be the whole image or everything after some point of the raster: a token
        can not be told about known tokens that follow it. Raises `InvalidRequestError` for other masks, and
        for a `num_steps` that is not the number of unknown positions.
        """
        num_unknown = count_unknown(unknown, grid)
        if num_steps is not None and num_steps != num_unknown:
            raise InvalidRequestError(
                f"Raster order predicts one token a step, so {num_unknown} unknown tokens take exactly "
                f"{num_unknown} steps, found num_steps={num_steps}: leave it out, or use a model trained "
                "with the random order, which predicts several tokens a step."
            )
        first = grid.length - num_unknown
        positions = torch.arange(grid.length, device=unknown.device)
        if not bool((unknown == (positions >= first)).all()):
            raise InvalidRequestError(
                "Raster can only continue a picture from above: expected the unknown tokens to be the last "
                f"ones, row by row (here all positions from {first} on, of {grid.length}), found known "
                "tokens among or after them. Use a model trained with the random order to fill in arbitrary "
                "regions."
            )
        order = positions[first:].repeat(unknown.shape[0], 1)
        return PlannedSteps(order, step_sizes=(1,) * num_unknown)
