"""The table that position vectors start from."""

import pytest
import torch

from fluid_core.backbone.position_embedding import PositionEmbedding, sine_cosine_table
from fluid_core.token_space import Grid

GRIDS = [Grid(height=4, width=4), Grid(height=8, width=8), Grid(height=16, width=16), Grid(height=3, width=12)]


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_positions_differ_in_most_of_what_the_table_says(grid):
    """What all positions share is less than half of its energy, and no two positions are close to each other."""
    table = sine_cosine_table(grid, 256)
    assert table.shape == (grid.length, 256)
    assert (table - table.mean(dim=0)).square().sum() > 0.5 * table.square().sum()
    assert torch.pdist(table).min() > 0.3 * table.norm(dim=1).mean()


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_neighbours_are_most_alike(grid):
    """Of all other cells in a row, the next one has the nearest vector."""
    first_row = sine_cosine_table(grid, 256)[: grid.width]
    distances = (first_row[1:] - first_row[0]).norm(dim=1)
    assert distances.argmin() == 0


@pytest.mark.parametrize("width", [1, 2, 5, 32])
@pytest.mark.parametrize("grid", [Grid(height=1, width=1), Grid(height=1, width=7), Grid(height=2, width=3)], ids=str)
def test_any_grid_and_width_have_a_table(grid, width):
    """Single cells, single rows and widths that do not divide by four."""
    table = sine_cosine_table(grid, width)
    assert table.shape == (grid.length, width)
    assert table.isfinite().all()


def test_a_second_table_is_not_the_first():
    """Mirrored vectors are as long, and not close to the plain one of any position."""
    plain, mirrored = (PositionEmbedding(GRIDS[1], 128, mirrored=value).table for value in (False, True))
    torch.testing.assert_close(plain.norm(dim=1), mirrored.norm(dim=1))
    assert torch.cdist(plain, mirrored).min() > 0.3 * plain.norm(dim=1).mean()
