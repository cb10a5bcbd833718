"""Fixed order: paths by name, and given position by position."""

import pytest
import torch

from fluid_core.configuration.structuring import structure
from fluid_core.errors import ConfigurationError, InvalidRequestError
from fluid_core.token_space import Grid
from fluid_orders import FixedOrder, FixedOrderOptions

GRID = Grid(height=3, width=4)


def path(positions, grid=GRID):
    """The path of an order, as a list."""
    return FixedOrder(FixedOrderOptions(positions=positions)).path(grid).tolist()


def test_paths_by_name():
    """Each is what its name says, written out on a small grid."""
    assert path("raster") == list(range(12))
    assert path("reverse-raster") == list(range(11, -1, -1))
    assert path("columns") == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    assert path("spiral") == [0, 1, 2, 3, 7, 11, 10, 9, 8, 4, 5, 6]
    # The centre lies between 5 and 6. Clockwise from the top: 2, then 10, 9, 1 on the next ring, and so on.
    assert path("centre-out") == [6, 5, 2, 10, 9, 1, 7, 4, 3, 11, 8, 0]


@pytest.mark.parametrize("name", ["raster", "reverse-raster", "columns", "spiral", "centre-out"])
def test_paths_cover_every_grid(name):
    """Every position once, on grids of all shapes."""
    for height, width in [(1, 1), (1, 7), (6, 1), (2, 2), (5, 5), (8, 3), (16, 16), (3, 17)]:
        grid = Grid(height=height, width=width)
        assert sorted(path(name, grid)) == list(range(grid.length))


def test_centre_out_never_goes_back_inwards():
    """Distances from the centre do not fall, on grids of even and odd sides."""
    for grid in (Grid(height=8, width=8), Grid(height=7, width=9)):
        found = torch.tensor(path("centre-out", grid))
        down, right = found // grid.width - (grid.height - 1) / 2, found % grid.width - (grid.width - 1) / 2
        assert bool((torch.diff(down**2 + right**2) >= 0).all())


def test_a_spiral_only_steps_to_neighbours():
    """Consecutive positions touch, and the last lies in the middle."""
    found = torch.tensor(path("spiral", Grid(height=5, width=5)))
    steps = (found // 5).diff().abs() + (found % 5).diff().abs()
    assert steps.unique().tolist() == [1]
    assert found[-1] == 12


def test_generation_follows_the_path_around_what_is_known(follow):
    """Every image takes the path, without its own known positions, whatever the seed."""
    unknown = torch.ones(2, 12, dtype=torch.bool)
    unknown[0, 6] = unknown[1, 0] = False
    order = FixedOrder(FixedOrderOptions(positions=tuple(path("centre-out"))))
    for seed in (0, 1):
        positions, sizes = follow(order, unknown, grid=GRID, num_steps=3, seed=seed)
        assert positions[0].tolist() == [one for one in path("centre-out") if one != 6]
        assert positions[1].tolist() == [one for one in path("centre-out") if one != 0]
        assert sizes == [2, 4, 5]


def test_a_list_for_another_grid_is_refused_in_training_too(follow):
    """Both numbers are named, before anything is trained."""
    order = FixedOrder(FixedOrderOptions(positions=[1, 0, 2]))
    for request in (
        lambda: order.training_view(2, GRID, generator=torch.Generator(), device=torch.device("cpu")),
        lambda: follow(order, torch.ones(1, 12, dtype=torch.bool), grid=GRID),
    ):
        with pytest.raises(
            InvalidRequestError, match="was given 3 positions, and the model's grid of 3 x 4 tokens has"
        ):
            request()


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([0, 0, 1], "exactly once, found 3 positions, 2 of them different, up to 1"),
        ([1, 2, 3], "found 3 positions, 3 of them different, up to 3"),
        ([], "up to none"),
        ([0.0, 1.0], "must be whole numbers"),
        ("middle", "must be one of .*'centre-out'.* found 'middle'"),
    ],
)
def test_lists_that_are_no_path_are_refused_by_the_options(positions, message):
    """Repeated and left-out positions, numbers that are not whole, unknown names."""
    with pytest.raises(ValueError, match=message):
        FixedOrderOptions(positions=positions)


def test_a_list_in_a_configuration():
    """As TOML has it; a misspelt name is told what there is."""
    assert structure({"positions": [2, 0, 1]}, FixedOrderOptions).positions == (2, 0, 1)
    with pytest.raises(ConfigurationError, match="'spiral'"):
        structure({"positions": "spirale"}, FixedOrderOptions)
