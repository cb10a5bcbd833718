"""Paths over a grid of tokens that have a name."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from fluid_core.token_space import Grid
from fluid_orders.options import NamedPath


def named_path(name: NamedPath, grid: Grid) -> Int[Tensor, "length"]:
    """All positions of the grid along the path of that name.

    - `centre-out`: by distance from the centre, and at equal distance clockwise from the top;
    - `spiral`: clockwise from the top left corner inwards;
    - `columns`: column by column from the left, each from the top;
    - `raster`, `reverse-raster`: row by row from the top left, and the same backwards.
    """
    return _PATHS[name](grid)


def _centre_out(grid: Grid) -> Tensor:
    def distance_and_angle(position: int) -> tuple[int, float]:
        # Twice the distance to the centre in each direction is a whole number: equal distances are equal.
        down = 2 * (position // grid.width) - (grid.height - 1)
        right = 2 * (position % grid.width) - (grid.width - 1)
        return down * down + right * right, math.atan2(right, -down) % (2 * math.pi)

    return torch.tensor(sorted(range(grid.length), key=distance_and_angle))


def _spiral(grid: Grid) -> Tensor:
    rest, path = _rows(grid), list[Tensor]()
    while rest.numel():
        path.append(rest[0])
        # What is left, turned so that the next side is on top.
        rest = rest[1:].rot90()
    return torch.cat(path)


def _rows(grid: Grid) -> Tensor:
    return torch.arange(grid.length).view(grid.height, grid.width)


_PATHS: dict[str, Callable[[Grid], Tensor]] = {
    "centre-out": _centre_out,
    "spiral": _spiral,
    "columns": lambda grid: _rows(grid).T.flatten(),
    "raster": lambda grid: _rows(grid).flatten(),
    "reverse-raster": lambda grid: _rows(grid).flatten().flip(0),
}
