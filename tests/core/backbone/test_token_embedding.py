"""Tokens as rows: canvases with holes, causal sequences, and positions."""

import pytest
import torch

from fluid_core import AttentionPattern, ContinuousTokens, DiscreteTokens, Grid, TrainedPermutations
from fluid_core.backbone.position_embedding import PositionEmbedding, sine_cosine_table
from fluid_core.backbone.token_embedding import TokenEmbedding

GRID = Grid(height=3, width=4)
CONTINUOUS = ContinuousTokens(grid=GRID, channels=5)
DISCRETE = DiscreteTokens(grid=GRID, vocabulary_size=7)


def embedding(space, attention=AttentionPattern.BIDIRECTIONAL, permutations=TrainedPermutations.ANY):
    """A fresh embedding of width 16."""
    torch.manual_seed(0)
    return TokenEmbedding(space, 16, attention, permutations)


@pytest.fixture
def known():
    """Half of the positions, different ones in two images."""
    return torch.stack([torch.arange(12) % 2 == 0, torch.arange(12) < 6])


def test_hidden_tokens_change_nothing_on_the_canvas(known):
    """What stands at unknown positions, however large, is replaced by the mask vector; known tokens do matter."""
    module = embedding(CONTINUOUS)
    tokens = torch.randn(2, 12, 5)
    other = torch.where(known[..., None], tokens, torch.tensor(1e30))
    rows = module.canvas(tokens, known)
    assert torch.equal(rows, module.canvas(other, known))
    assert torch.equal(rows[~known], (module.placeholder + module.position.table).expand(2, -1, -1)[~known])
    assert not torch.equal(rows, module.canvas(tokens + 1.0, known))


def test_hidden_tokens_get_no_gradient(known):
    """The canvas is differentiable in the known tokens alone, even beside huge hidden ones."""
    module = embedding(CONTINUOUS)
    tokens = torch.where(known[..., None], torch.randn(2, 12, 5), torch.tensor(1e30)).requires_grad_()
    module.canvas(tokens, known).square().sum().backward()
    assert torch.equal(tokens.grad[~known], torch.zeros_like(tokens.grad[~known]))
    assert bool((tokens.grad[known].abs().sum(dim=1) > 0).all())
    assert bool(module.content.weight.grad.isfinite().all())


def test_hidden_ids_change_nothing_on_the_canvas(known):
    """The same for discrete tokens."""
    module = embedding(DISCRETE)
    ids = torch.randint(7, (2, 12))
    other = torch.where(known, ids, (ids + 3) % 7)
    assert torch.equal(module.canvas(ids, known), module.canvas(other, known))


def test_a_sequence_is_shifted_by_one():
    """Row 0 is the start vector; row i holds token order[i - 1] with its position, and never the token it predicts."""
    module = embedding(DISCRETE, AttentionPattern.CAUSAL, TrainedPermutations.FIXED)
    ids = torch.randint(7, (2, 12))
    order = torch.stack([torch.randperm(12) for _ in range(2)])
    rows = module.sequence(ids, order)
    assert torch.equal(rows[:, 0], module.placeholder.expand(2, -1))
    for image in range(2):
        for i in range(1, 12):
            position = order[image, i - 1]
            expected = module.content(ids[image, position][None, None])[0, 0] + module.position.table[position]
            torch.testing.assert_close(rows[image, i], expected)
    last = ids.clone()
    last[torch.arange(2), order[:, -1]] = (ids[torch.arange(2), order[:, -1]] + 1) % 7
    assert torch.equal(module.sequence(last, order), rows)


def test_only_varying_permutations_tell_the_target_position():
    """Over any permutation a row knows which position it predicts; a fixed permutation needs no such table."""
    fixed = embedding(CONTINUOUS, AttentionPattern.CAUSAL, TrainedPermutations.FIXED)
    varying = embedding(CONTINUOUS, AttentionPattern.CAUSAL, TrainedPermutations.ANY)
    targets = torch.arange(12)[None]
    assert fixed.target_position is None
    assert len(torch.unique(fixed.start(targets)[0], dim=0)) == 1
    assert len(torch.unique(varying.start(targets)[0], dim=0)) == 12
    assert embedding(CONTINUOUS).target_position is None


def test_rows_of_a_sequence_are_those_added_one_by_one():
    """`start` and `following`, which generation uses, give the rows that `sequence` gives to training."""
    module = embedding(CONTINUOUS, AttentionPattern.CAUSAL, TrainedPermutations.ANY)
    tokens, order = torch.randn(1, 12, 5), torch.randperm(12)[None]
    rows = [module.start(order[:, :1])]
    for i in range(1, 12):
        here = order[:, i - 1 : i]
        rows.append(module.following(tokens[:, here[0]], here, order[:, i : i + 1]))
    torch.testing.assert_close(torch.cat(rows, dim=1), module.sequence(tokens, order))


@pytest.mark.parametrize("width", [8, 15, 96])
@pytest.mark.parametrize("grid", [Grid(height=16, width=16), Grid(height=2, width=9), Grid(height=1, width=64)])
def test_every_position_has_a_vector_of_its_own(width, grid):
    """Rows of the initial table differ clearly from each other and stay within [-1, 1]."""
    table = sine_cosine_table(grid, width)
    assert table.shape == (grid.length, width)
    distances = torch.cdist(table, table) + torch.eye(grid.length) * 9
    assert distances.min() > 0.05
    assert table.abs().max() <= 1.0


def test_rows_and_columns_are_separate_in_the_table():
    """The first half of a vector says the row, the second the column: wrapping to the next row is no small step."""
    table = PositionEmbedding(Grid(height=4, width=6), 32).table.view(4, 6, 32)
    assert torch.equal(table[2, :, :16], table[2, :1, :16].expand(6, -1))
    assert torch.equal(table[:, 3, 16:], table[:1, 3, 16:].expand(4, -1))
    end_to_next_row = (table[0, 5] - table[1, 0]).norm()
    neighbours = (table[0, 4] - table[0, 5]).norm()
    assert end_to_next_row > 1.2 * neighbours


def test_gradients_of_positions_are_the_same_each_time():
    """However many threads add them up: a run that is repeated must come to the same weights."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        module = PositionEmbedding(Grid(height=2, width=2), 64)
        positions, direction = torch.randint(4, (2000, 20)), torch.randn(2000, 20, 64)
        gradients = []
        for _ in range(4):
            module.table.grad = None
            module(positions).backward(direction)
            gradients.append(module.table.grad)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(gradients[0], other) for other in gradients[1:])
