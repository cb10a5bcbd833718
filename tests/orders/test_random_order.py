"""Random order: cosine mask ratios in training, keyed permutations and cosine steps in generation."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import AttentionPattern, TrainedPermutations
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import Grid
from fluid_orders import RandomOrder, RandomOrderOptions, cosine_step_sizes

GRID = Grid(height=8, width=8)
CPU = torch.device("cpu")


def _view(batch: int, seed: int, grid: Grid = GRID):
    generator = torch.Generator().manual_seed(seed)
    return RandomOrder().training_view(batch, grid, generator=generator, device=CPU)


def _keys(num_rows: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(2**63 - 1, (num_rows,), generator=torch.Generator().manual_seed(seed))


def _course(order: RandomOrder, unknown: torch.Tensor, keys: torch.Tensor, num_steps: int | None = None):
    """All proposed positions in turn, and the sizes of the steps."""
    grid = Grid(height=1, width=unknown.shape[1])
    steps = order.generation(unknown, grid, num_steps=num_steps, random=KeyedRandom(keys))
    parts = []
    while (positions := steps.propose()) is not None:
        assert steps.accept(None).all()
        parts.append(positions)
    assert len(parts) == steps.num_steps
    return torch.cat(parts, dim=1), [part.shape[1] for part in parts]


def _random_masks(batch: int, length: int, num_unknown: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    ranks = torch.rand(batch, length, generator=generator).argsort(dim=1).argsort(dim=1)
    return ranks < num_unknown


def test_it_is_a_masked_model():
    """Attention is bidirectional, over all permutations."""
    assert RandomOrder().attention is AttentionPattern.BIDIRECTIONAL
    assert RandomOrder().trained_permutations is TrainedPermutations.ANY


def test_training_orders_are_permutations_of_their_own():
    """Each sample has another permutation, and at least one token is predicted."""
    view = _view(256, seed=1)
    assert torch.equal(view.order.sort(dim=1).values, torch.arange(64).repeat(256, 1))
    assert len({tuple(row) for row in view.order.tolist()}) == 256
    assert int(view.num_known.min()) >= 0
    assert int(view.num_known.max()) < 64
    assert torch.equal(view.predicted().sum(dim=1), 64 - view.num_known)


def test_training_positions_are_uniform():
    """Each position is as likely as any other to come first, and to be predicted."""
    view = _view(64_000, seed=2)
    counts = torch.bincount(view.order[:, 0], minlength=64).double()
    assert ((counts - 1000).abs() < 5 * math.sqrt(1000)).all()
    shares = view.predicted().double().mean(dim=0)
    assert (shares - shares.mean()).abs().max() < 0.01


def test_the_mask_ratio_follows_the_cosine():
    """The predicted share is cos(pi/2 * r): 2/pi on average, with the matching distribution, rounded up."""
    grid = Grid(height=16, width=16)
    num_predicted = (256 - _view(40_000, seed=3, grid=grid).num_known).double()
    mean, rounding = 2 / math.pi, 0.5 / 256
    # The deviation of cos(pi/2 * r) is 0.31: the mean of 40,000 is known to 0.0015.
    assert num_predicted.mean() / 256 == pytest.approx(mean + rounding, abs=0.006)
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
        expected = 1 - 2 / math.pi * math.acos(share)
        assert (num_predicted / 256 <= share).double().mean() == pytest.approx(expected, abs=0.012)


def test_training_meets_the_empty_canvas_and_the_last_token():
    """Some samples know nothing, as every generation does at first, and some all but one token."""
    num_known = _view(5000, seed=4).num_known
    assert (num_known == 0).double().mean() > 0.05
    assert (num_known == 63).any()


def test_training_views_repeat_with_the_generator():
    """The same seed gives the same view, another seed another one."""
    first, again, other = _view(8, seed=5), _view(8, seed=5), _view(8, seed=6)
    assert torch.equal(first.order, again.order)
    assert torch.equal(first.num_known, again.num_known)
    assert not torch.equal(first.order, other.order)


def test_a_single_token_is_always_predicted():
    """A grid of one token has no room for anything known."""
    view = _view(1000, seed=7, grid=Grid(height=1, width=1))
    assert (view.num_known == 0).all()


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 1024), st.data())
def test_generation_predicts_every_unknown_position_once(num_unknown: int, data: st.DataObject):
    """Over all steps the proposals are exactly the unknown positions of each image, in the cosine's sizes."""
    length = data.draw(st.integers(num_unknown, 1024))
    num_steps = data.draw(st.integers(1, num_unknown))
    unknown = _random_masks(2, length, num_unknown, seed=length)
    positions, sizes = _course(RandomOrder(), unknown, _keys(2, seed=num_unknown), num_steps)
    assert sizes == list(cosine_step_sizes(num_unknown, num_steps))
    for image in range(2):
        assert torch.equal(positions[image].sort().values, unknown[image].nonzero()[:, 0])


def test_an_image_has_its_own_order_whatever_its_neighbours():
    """A row alone, first, or among others gets the same permutation: only its key and its mask count."""
    unknown, keys = _random_masks(5, 64, 40, seed=0), _keys(5)
    together, _ = _course(RandomOrder(), unknown, keys)
    shuffled = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(_course(RandomOrder(), unknown[shuffled], keys[shuffled])[0], together[shuffled])
    for image in range(5):
        alone, _ = _course(RandomOrder(), unknown[image : image + 1], keys[image : image + 1])
        assert torch.equal(alone[0], together[image])


def test_generation_orders_differ_between_keys_and_are_uniform():
    """Keys decide; over many of them each position is equally likely to come first."""
    unknown = torch.ones(16_000, 16, dtype=torch.bool)
    positions, _ = _course(RandomOrder(), unknown, _keys(16_000), num_steps=1)
    counts = torch.bincount(positions[:, 0], minlength=16).double()
    assert ((counts - 1000).abs() < 5 * math.sqrt(1000)).all()
    assert torch.equal(_course(RandomOrder(), unknown, _keys(16_000), num_steps=1)[0], positions)
    assert not torch.equal(_course(RandomOrder(), unknown, _keys(16_000, seed=1), num_steps=1)[0], positions)


@pytest.mark.parametrize(
    ("options", "num_unknown", "expected"),
    [
        (RandomOrderOptions(), 256, 64),
        (RandomOrderOptions(), 10, 10),
        (RandomOrderOptions(num_steps=16), 256, 16),
        (RandomOrderOptions(num_steps=16), 10, 10),
        (RandomOrderOptions(num_steps=100), 256, 100),
    ],
)
def test_the_default_number_of_steps(options: RandomOrderOptions, num_unknown: int, expected: int):
    """Without a request, the options decide (64 if they are silent), but never beyond the unknown positions."""
    _, sizes = _course(RandomOrder(options), torch.ones(1, num_unknown, dtype=torch.bool), _keys(1))
    assert len(sizes) == expected


@pytest.mark.parametrize("num_steps", [0, -1, 41])
def test_impossible_numbers_of_steps_are_refused(num_steps: int):
    """Zero, negative, or more steps than unknown positions: an error, not an empty step."""
    with pytest.raises(InvalidRequestError, match=f"num_steps={num_steps}"):
        _course(RandomOrder(), _random_masks(2, 64, 40, seed=0), _keys(2), num_steps)


def test_nothing_unknown_takes_no_steps():
    """A finished picture needs none, and a request for some is refused."""
    unknown = torch.zeros(2, 64, dtype=torch.bool)
    steps = RandomOrder().generation(unknown, GRID, num_steps=None, random=KeyedRandom(_keys(2)))
    assert steps.num_steps == 0
    assert steps.propose() is None
    with pytest.raises(InvalidRequestError, match="num_steps=4 for 0 unknown"):
        RandomOrder().generation(unknown, GRID, num_steps=4, random=KeyedRandom(_keys(2)))


def test_images_must_have_equally_many_unknown_positions():
    """Different counts in one batch are refused with the counts."""
    unknown = torch.cat([_random_masks(1, 64, 40, seed=0), _random_masks(1, 64, 41, seed=0)])
    with pytest.raises(InvalidRequestError, match=r"found \[40, 41\]"):
        RandomOrder().generation(unknown, GRID, num_steps=None, random=KeyedRandom(_keys(2)))


@pytest.mark.parametrize("num_steps", [0, -2])
def test_options_refuse_a_default_of_no_steps(num_steps: int):
    """The options check their own default."""
    with pytest.raises(ValueError, match="num_steps"):
        RandomOrderOptions(num_steps=num_steps)
