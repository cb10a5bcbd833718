"""Raster order: the whole picture or its lower part, one token a step."""

import pytest
import torch

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import AttentionPattern, TrainedPermutations
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import Grid
from fluid_orders import RasterOrder

GRID = Grid(height=4, width=6)
CPU = torch.device("cpu")


def _random(num_rows: int) -> KeyedRandom:
    return KeyedRandom(torch.arange(num_rows))


def _unknown_from(first: int, batch: int = 2) -> torch.Tensor:
    return (torch.arange(GRID.length) >= first).repeat(batch, 1)


def _positions(steps) -> torch.Tensor:
    parts = []
    while (positions := steps.propose()) is not None:
        assert steps.accept(None).all()
        parts.append(positions)
    return torch.cat(parts, dim=1)


def test_it_is_an_ordinary_gpt():
    """Attention is causal, over one permutation."""
    order = RasterOrder()
    assert order.attention is AttentionPattern.CAUSAL
    assert order.trained_permutations is TrainedPermutations.FIXED


def test_training_predicts_every_token_from_those_before():
    """The order is 0, 1, 2, ... for each image, nothing is known, and no random number is drawn."""
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    view = RasterOrder().training_view(3, GRID, generator=generator, device=CPU)
    assert view.order.tolist() == [list(range(24))] * 3
    assert view.num_known.tolist() == [0, 0, 0]
    assert view.predicted().all()
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("first", [0, 1, 6, 13, 23])
def test_generation_continues_from_any_point(first: int):
    """Unknown positions at the end of the raster are visited in turn, one token a step."""
    steps = RasterOrder().generation(_unknown_from(first), GRID, num_steps=None, random=_random(2))
    assert steps.num_steps == 24 - first
    assert _positions(steps).tolist() == [list(range(first, 24))] * 2


def test_the_number_of_unknown_tokens_is_the_only_number_of_steps():
    """That number may be said; any other is refused, with the random order as the way out."""
    unknown = _unknown_from(4)
    assert RasterOrder().generation(unknown, GRID, num_steps=20, random=_random(2)).num_steps == 20
    for num_steps in (0, -1, 8, 21):
        with pytest.raises(InvalidRequestError, match=f"exactly 20 steps, found num_steps={num_steps}.*random order"):
            RasterOrder().generation(unknown, GRID, num_steps=num_steps, random=_random(2))


def test_holes_can_not_be_filled():
    """Known tokens behind an unknown one are refused, even if only in one image of the batch."""
    hole = _unknown_from(12, batch=3)
    hole[1, 5], hole[1, 20] = True, False
    with pytest.raises(InvalidRequestError, match="Raster can only continue a picture from above"):
        RasterOrder().generation(hole, GRID, num_steps=None, random=_random(3))
    upper_half = ~_unknown_from(12)
    with pytest.raises(InvalidRequestError, match="all positions from 12 on, of 24"):
        RasterOrder().generation(upper_half, GRID, num_steps=None, random=_random(2))


def test_images_must_have_equally_many_unknown_positions():
    """Different counts in one batch are refused with the counts."""
    unknown = torch.cat([_unknown_from(4, batch=1), _unknown_from(6, batch=1)])
    with pytest.raises(InvalidRequestError, match=r"found \[18, 20\]"):
        RasterOrder().generation(unknown, GRID, num_steps=None, random=_random(2))


def test_a_mask_of_another_grid_is_refused():
    """The mask has one entry for each position of the grid."""
    with pytest.raises(InvalidRequestError, match="4 x 6 tokens, found one over 16"):
        RasterOrder().generation(torch.ones(1, 16, dtype=torch.bool), GRID, num_steps=None, random=_random(1))
