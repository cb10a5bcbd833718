"""Halton order: every position once, spread evenly over the picture at every moment."""

import pytest
import torch

from fluid_core.token_space import Grid
from fluid_orders import HaltonOrder, HaltonOrderOptions
from fluid_orders.halton import halton_path


def radical_inverse(index, base):
    """The digits of `index` behind the point, in reverse: the definition."""
    value, scale = 0.0, 1.0 / base
    while index:
        value, index, scale = value + index % base * scale, index // base, scale / base
    return value


def test_the_path_is_the_halton_sequence():
    """On a grid whose sides are powers of the bases, cells are met in the order of the points' definition."""
    grid = Grid(height=8, width=9)
    expected = []
    for index in [*range(1, 72 * 4), 0]:
        # Cells are half open; a thousandth of a cell keeps rounding away from their edges.
        row = int(radical_inverse(index, 2) * 8 + 1e-3)
        column = int(radical_inverse(index, 3) * 9 + 1e-3)
        if row * 9 + column not in expected:
            expected.append(row * 9 + column)
    assert halton_path(grid).tolist() == expected


def test_every_grid_is_covered():
    """Each position comes once, on all grids to 24 x 24 and on long ones."""
    sides = [*((height, width) for height in range(1, 25) for width in range(1, 25)), (1, 1024), (1000, 1), (32, 32)]
    for height, width in sides:
        path = halton_path(Grid(height=height, width=width))
        assert torch.equal(path.sort().values, torch.arange(height * width)), (height, width)


def discrepancy(path, count, side):
    """The largest difference between the share of the first `count` positions in a rectangle from a corner, and the
    share of the picture in it.
    """
    known = torch.zeros(side * side).scatter(0, path[:count], 1.0).view(side, side)
    inside = known.cumsum(0).cumsum(1) / count
    edges = torch.arange(1, side + 1) / side
    return float((inside - edges[:, None] * edges).abs().max())


@pytest.mark.parametrize("count", [16, 32, 64, 128])
def test_it_covers_the_picture_evenly(count):
    """After some steps the positions are spread more evenly than those of any of a hundred random orders."""
    generator = torch.Generator().manual_seed(0)
    randoms = [discrepancy(torch.randperm(256, generator=generator), count, 16) for _ in range(100)]
    assert discrepancy(halton_path(Grid(height=16, width=16)), count, 16) < min(randoms)


def test_without_an_offset_nothing_is_random(follow):
    """Every image and every seed have the same order: the path, without what is known."""
    grid = Grid(height=6, width=5)
    unknown = torch.ones(3, 30, dtype=torch.bool)
    for seed in (0, 1):
        positions, _ = follow(HaltonOrder(), unknown, grid=grid, seed=seed)
        assert torch.equal(positions, halton_path(grid).expand(3, -1))
    unknown[:, 4] = unknown[:, 17] = False
    positions, _ = follow(HaltonOrder(), unknown, grid=grid)
    assert positions[0].tolist() == [position for position in halton_path(grid).tolist() if position not in (4, 17)]


def test_an_offset_moves_the_path_around_the_grid(follow):
    """Each image's order is the path moved by some rows and columns; seeds decide which, and all of them occur."""
    grid = Grid(height=4, width=3)
    order = HaltonOrder(HaltonOrderOptions(seeded_offset=True))
    positions, _ = follow(order, torch.ones(400, 12, dtype=torch.bool), grid=grid)
    path = halton_path(grid)
    offsets = set()
    for row in positions:
        down, right = (row[0] // 3 - path[0] // 3) % 4, (row[0] % 3 - path[0] % 3) % 3
        moved = (path // 3 + down) % 4 * 3 + (path % 3 + right) % 3
        assert torch.equal(row, moved)
        offsets.add((int(down), int(right)))
    assert len(offsets) == 12
    again, _ = follow(order, torch.ones(400, 12, dtype=torch.bool), grid=grid)
    other, _ = follow(order, torch.ones(400, 12, dtype=torch.bool), grid=grid, seed=1)
    assert torch.equal(again, positions)
    assert not torch.equal(other, positions)
