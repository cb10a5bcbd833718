"""Where a token is in the image, as a vector."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from fluid_core.token_space import Grid


def sine_cosine_table(grid: Grid, width: int) -> Float[Tensor, "length width"]:
    """Sines and cosines of a position's row and column at geometric frequencies, half of the width for each axis.

    Periods reach from four cells to four times the axis. Longer ones would hardly change over the grid: they are the
    same for all positions, and what tells these apart would be small beside it (docs/decisions, 13).

    Two-dimensional on purpose: with one dimension the end of a row and the start of the next are neighbours, which the
    paper suspects behind the grey patches of raster-order models.
    """
    half = (width + 1) // 2

    def axis(coordinates: Tensor, num_cells: int) -> Tensor:
        num_frequencies = (half + 1) // 2
        fall = torch.arange(num_frequencies) * (math.log(num_cells) / max(1, num_frequencies - 1))
        angles = coordinates[:, None] * (math.pi / 2.0 * torch.exp(-fall))
        return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :half]

    rows, columns = torch.meshgrid(torch.arange(grid.height), torch.arange(grid.width), indexing="ij")
    # From the middles of cells: at whole quarter turns half of the sines and cosines would be zero.
    parts = [(rows, grid.height), (columns, grid.width)]
    table = torch.cat([axis(cells.flatten() + 0.5, num_cells) for cells, num_cells in parts], dim=1)
    return table[:, :width]


class PositionEmbedding(nn.Module):
    """A learned vector for each position of the grid, starting from a sine-cosine table.

    With `mirrored` the table's columns come in the reverse order: where a row of the transformer says two positions,
    the same table twice would let it confuse them.
    """

    def __init__(self, grid: Grid, width: int, *, mirrored: bool = False) -> None:
        super().__init__()
        self.grid = grid
        self.mirrored = mirrored
        self.table = nn.Parameter(torch.empty(grid.length, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to the sine-cosine table."""
        with torch.no_grad():
            table = sine_cosine_table(self.grid, self.table.shape[1])
            self.table.copy_(table.flip(1) if self.mirrored else table)

    def no_weight_decay(self) -> tuple[str, ...]:
        """The table: a vector for each place, not a matrix that multiplies."""
        return ("table",)

    def forward(self, positions: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape width"]:
        """Vectors of positions numbered in raster order."""
        return functional.embedding(positions, self.table)
