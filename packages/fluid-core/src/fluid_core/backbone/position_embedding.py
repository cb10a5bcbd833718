"""Where a token is in the image, as a vector."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from fluid_core.token_space import Grid


def sine_cosine_table(grid: Grid, width: int) -> Float[Tensor, "length width"]:
    """Sines and cosines of a position's row and column at geometric frequencies, half of the width for each axis.

    Two-dimensional on purpose: with one dimension the end of a row and the start of the next are neighbours, which the
    paper suspects behind the grey patches of raster-order models.
    """
    half = (width + 1) // 2

    def axis(coordinates: Tensor) -> Tensor:
        num_frequencies = (half + 1) // 2
        steps = torch.arange(num_frequencies, dtype=torch.float32) / max(num_frequencies, 1)
        angles = coordinates[:, None] * torch.exp(-math.log(1000.0) * steps)
        return torch.cat([angles.sin(), angles.cos()], dim=1)[:, :half]

    rows, columns = torch.meshgrid(torch.arange(grid.height), torch.arange(grid.width), indexing="ij")
    table = torch.cat([axis(rows.flatten().float()), axis(columns.flatten().float())], dim=1)
    return table[:, :width]


class PositionEmbedding(nn.Module):
    """A learned vector for each position of the grid, starting from a sine-cosine table."""

    def __init__(self, grid: Grid, width: int) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.empty(grid.length, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Back to the sine-cosine table."""
        with torch.no_grad():
            self.table.copy_(sine_cosine_table(self.grid, self.table.shape[1]))

    def no_weight_decay(self) -> tuple[str, ...]:
        """The table: a vector for each place, not a matrix that multiplies."""
        return ("table",)

    def forward(self, positions: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape width"]:
        """Vectors of positions numbered in raster order."""
        return functional.embedding(positions, self.table)
