"""What adaptive orders are told in tests: how sure a head may be of the tokens at some positions."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import Grid

Confidence = Callable[[Tensor, KeyedRandom, Grid], Tensor | None]
"""From the positions proposed, random numbers of this step for each image, and the grid, to what an order is told."""


def tell_nothing(positions: Int[Tensor, "batch positions"], random: KeyedRandom, grid: Grid) -> None:
    """What an order is told of a head that can not tell."""


def sure_at_random(
    positions: Int[Tensor, "batch positions"], random: KeyedRandom, grid: Grid
) -> Float[Tensor, "batch positions"]:
    """Numbers in [0, 1) that depend on image and position."""
    return random.uniform((grid.length,)).gather(1, positions)


def sure_of_early_positions(
    positions: Int[Tensor, "batch positions"],
    random: KeyedRandom,  # noqa: ARG001
    grid: Grid,
) -> Float[Tensor, "batch positions"]:
    """Most for the first positions in raster order: so far apart that no noise of an order changes the outcome."""
    return (1e6 * (grid.length - positions)).float()


def sure_of_late_positions(
    positions: Int[Tensor, "batch positions"],
    random: KeyedRandom,  # noqa: ARG001
    grid: Grid,  # noqa: ARG001
) -> Float[Tensor, "batch positions"]:
    """Most for the last positions in raster order."""
    return (1e6 * positions).float()


def equally_sure(
    positions: Int[Tensor, "batch positions"],
    random: KeyedRandom,  # noqa: ARG001
    grid: Grid,  # noqa: ARG001
) -> Float[Tensor, "batch positions"]:
    """The same for every token."""
    return torch.full(positions.shape, -1.0)


def far_apart(
    positions: Int[Tensor, "batch positions"], random: KeyedRandom, grid: Grid
) -> Float[Tensor, "batch positions"]:
    """From -1 to -10^30: as far apart as log-probabilities never are."""
    return -(10.0 ** (30.0 * sure_at_random(positions, random, grid)))
