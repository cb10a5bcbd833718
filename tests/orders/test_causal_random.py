"""Causal random order: a permutation of its own for every image, in training and in generation."""

import math

import torch

from fluid_core.token_space import Grid
from fluid_orders import CausalRandomOrder, RandomOrder

GRID = Grid(height=8, width=8)


def view(batch_size, seed):
    """What a batch shows."""
    generator = torch.Generator().manual_seed(seed)
    return CausalRandomOrder().training_view(batch_size, GRID, generator=generator, device=torch.device("cpu"))


def test_training_predicts_every_token_along_a_permutation():
    """Each image has another permutation, all positions are predicted, and the generator decides."""
    drawn = view(256, seed=1)
    assert torch.equal(drawn.order.sort(dim=1).values, torch.arange(64).repeat(256, 1))
    assert len({tuple(row) for row in drawn.order.tolist()}) == 256
    assert int(drawn.num_known.max()) == 0
    assert drawn.predicted().all()
    assert torch.equal(view(256, seed=1).order, drawn.order)
    assert not torch.equal(view(256, seed=2).order, drawn.order)


def test_training_positions_are_uniform():
    """Each position is as likely as any other to come first, and to follow another."""
    order = view(64_000, seed=2).order
    counts = torch.bincount(order[:, 0], minlength=64).double()
    assert ((counts - 1000).abs() < 5 * math.sqrt(1000)).all()
    neighbours = ((order[:, 1] - order[:, 0]).abs() == 1).double().mean()
    assert abs(float(neighbours) - 2 * 63 / (64 * 63)) < 0.002


def test_generation_follows_the_random_order(follow, random_masks):
    """The same keys give the same permutation as with bidirectional attention: the two can be compared."""
    unknown = random_masks(4, 64, 40)
    causal, sizes = follow(CausalRandomOrder(), unknown, grid=GRID, num_steps=9)
    bidirectional, others = follow(RandomOrder(), unknown, grid=GRID, num_steps=9)
    assert torch.equal(causal, bidirectional)
    assert sizes == others
