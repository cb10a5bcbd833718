"""Halton order: positions spread evenly over the picture at every moment (after Halton-MaskGIT, arXiv 2503.17076).

Tokens that are drawn in one step do not see each other. A low-discrepancy sequence keeps them far apart, and what is
known at any time covers the whole picture.
"""

import math

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fluid_core.exchange import AttentionPattern, TrainedPermutations, TrainingView
from fluid_core.keyed_random import KeyedRandom
from fluid_core.planned_steps import PlannedSteps
from fluid_core.token_space import Grid
from fluid_orders.masked_training import masked_view
from fluid_orders.options import HaltonOrderOptions
from fluid_orders.step_sizes import steps_of
from fluid_orders.unknown_positions import count_unknown, unknown_by_rank


class HaltonOrder:
    """A masked model, trained as the random order, that fills the picture along a Halton sequence."""

    attention = AttentionPattern.BIDIRECTIONAL
    trained_permutations = TrainedPermutations.ANY

    def __init__(self, options: HaltonOrderOptions | None = None) -> None:
        self.options = options or HaltonOrderOptions()

    def training_view(
        self, batch_size: int, grid: Grid, *, generator: torch.Generator, device: torch.device
    ) -> TrainingView:
        """A random permutation and a cosine mask ratio of its own for every sample: see `masked_view`."""
        return masked_view(batch_size, grid, generator=generator, device=device)

    def generation(
        self, unknown: Bool[Tensor, "batch length"], grid: Grid, *, num_steps: int | None, random: KeyedRandom
    ) -> PlannedSteps:
        """The unknown positions of each image along the sequence, cut as the options say.

        With `seeded_offset` an image's key decides how far the sequence is moved; without, nothing is random. Raises
        `InvalidRequestError` for a `num_steps` below one or above the number of unknown positions.
        """
        num_unknown = count_unknown(unknown, grid)
        sizes = steps_of(self.options, num_unknown, num_steps)
        ranks = halton_path(grid).argsort()[None].to(unknown.device)
        if self.options.seeded_offset:
            ranks = _moved(ranks[0], grid, random).to(unknown.device)
        return PlannedSteps(unknown_by_rank(unknown, ranks, num_unknown), step_sizes=sizes)


def halton_path(grid: Grid) -> Int[Tensor, "length"]:
    """All positions of the grid in the order in which the Halton sequence with bases 2 (rows) and 3 (columns) first
    meets them.
    """
    # A cell is as high as two of the 2^a intervals that the first 2^a points fill one each, so it holds one of them
    # whole; likewise in the other direction. By the Chinese remainder theorem 2^a * 3^b points then meet all cells.
    num_rows = 2 ** math.ceil(math.log2(2 * grid.height))
    num_columns = 3 ** math.ceil(math.log(2 * grid.width, 3))
    index = torch.arange(1, num_rows * num_columns + 1) % (num_rows * num_columns)
    # In whole numbers, so that no rounding moves a point across the edge of a cell.
    rows = _digits_reversed(index, base=2, scale=num_rows) * grid.height // num_rows
    columns = _digits_reversed(index, base=3, scale=num_columns) * grid.width // num_columns
    positions = (rows * grid.width + columns).tolist()
    path = list(dict.fromkeys(positions))
    assert len(path) == grid.length, f"the sequence met {len(path)} of {grid.length} positions"
    return torch.tensor(path)


def _digits_reversed(index: Int[Tensor, "points"], *, base: int, scale: int) -> Int[Tensor, "points"]:
    """The radical inverse of each index, times `scale`, a power of `base`: its digits in reverse."""
    reversed_digits = torch.zeros_like(index)
    while scale > 1:
        scale //= base
        reversed_digits += index % base * scale
        index = index // base
    return reversed_digits


def _moved(ranks: Int[Tensor, "length"], grid: Grid, random: KeyedRandom) -> Int[Tensor, "batch length"]:
    """Ranks of the sequence moved around the grid, which has no edges for it, by an offset of each image."""
    share = random.uniform((2,))
    down, right = (share[:, 0] * grid.height).long()[:, None], (share[:, 1] * grid.width).long()[:, None]
    position = torch.arange(grid.length, device=share.device)
    row, column = position // grid.width, position % grid.width
    source = (row - down) % grid.height * grid.width + (column - right) % grid.width
    return ranks.to(share.device)[source]
