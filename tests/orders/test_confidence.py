"""Confidence order: all unknown positions are proposed, exactly the schedule's number of the surest is kept."""

import pytest
import torch

from fluid_core.errors import InvalidRequestError
from fluid_core.keyed_random import KeyedRandom
from fluid_core.protocols import AnnouncesKept, UsesConfidence
from fluid_core.token_space import Grid
from fluid_orders import ConfidenceOrder, ConfidenceOrderOptions

GRID = Grid(height=4, width=4)
CERTAIN = ConfidenceOrder(ConfidenceOrderOptions(noise=0.0))


def start(order, unknown, *, num_steps, keys=None):
    """Steps of a generation."""
    keys = torch.arange(len(unknown)) if keys is None else keys
    return order.generation(unknown, GRID, num_steps=num_steps, random=KeyedRandom(keys))


def test_it_says_what_it_needs():
    """It has the ability to use confidence and can not do without."""
    assert isinstance(ConfidenceOrder(), UsesConfidence)
    assert ConfidenceOrder().needs_confidence
    steps = start(ConfidenceOrder(), torch.ones(1, 16, dtype=torch.bool), num_steps=2)
    assert isinstance(steps, AnnouncesKept)
    with pytest.raises(InvalidRequestError, match="was told nothing: use a head that can tell, such as 'softmax'"):
        steps.accept(None)
    with pytest.raises(InvalidRequestError, match="values that are not numbers"):
        steps.accept(torch.full((1, 16), torch.nan))


def test_everything_unknown_is_proposed_and_the_surest_kept(random_masks):
    """Step by step: proposals are what is left, in raster order; kept are the largest confidences, as announced."""
    unknown = random_masks(3, 16, 11)
    steps = start(CERTAIN, unknown, num_steps=4)
    left, generator = unknown.clone(), torch.Generator().manual_seed(0)
    for size in (1, 3, 3, 4):
        positions = steps.propose()
        assert torch.equal(positions, left.nonzero()[:, 1].view(3, -1))
        assert steps.num_kept == size
        confidence = torch.randn(positions.shape, generator=generator)
        keep = steps.accept(confidence)
        assert keep.sum(dim=1).tolist() == [size] * 3
        for row in range(3):
            expected = set(positions[row][confidence[row].topk(size).indices].tolist())
            assert set(positions[row][keep[row]].tolist()) == expected
            left[row, list(expected)] = False
    assert steps.propose() is None
    assert not left.any()


def test_equal_confidence_is_raster_order():
    """Ties are decided, and alike in every image."""
    steps = start(CERTAIN, torch.ones(2, 16, dtype=torch.bool), num_steps=2)
    keep = steps.accept(torch.zeros(2, 16))
    assert keep.tolist() == [[True] * 5 + [False] * 11] * 2


def kept_first(noise, *, num_steps=8, num_images=4000):
    """How often the surest of 16 tokens is among those kept at the first step: log-probabilities fall by one each."""
    order = ConfidenceOrder(ConfidenceOrderOptions(noise=noise))
    steps = start(order, torch.ones(num_images, 16, dtype=torch.bool), num_steps=num_steps)
    return steps, steps.accept(-torch.arange(16.0).expand(num_images, -1))


def test_noise_is_gumbel_of_the_strength_that_is_left():
    """One token is kept first; which is a softmax of the confidences divided by noise * (1 - 1 / N), by the Gumbel-max
    trick.
    """
    _, keep = kept_first(4.0)
    assert int(keep.sum()) == 4000
    frequency = keep.double().mean(dim=0)
    expected = (-torch.arange(16.0).double() / (4.0 * 7 / 8)).softmax(dim=0)
    assert (frequency - expected).abs().max() < 5 * 0.5 / 4000**0.5
    assert not torch.allclose(frequency, (-torch.arange(16.0).double() / 2.0).softmax(dim=0), atol=0.05)


def test_noise_falls_to_nothing():
    """The later a step, the more often the surest token is kept; without noise it always is."""
    assert kept_first(0.0)[1][:, 0].all()
    steps, _ = kept_first(8.0, num_steps=16)
    shares = []
    while (positions := steps.propose()) is not None and positions.shape[1] > 2:
        # The first of what is left is surer than all others by 5.
        keep = steps.accept(torch.zeros(positions.shape).index_fill(1, torch.tensor([0]), 5.0))
        shares.append(float(keep[:, 0].double().mean()))
    assert shares[0] < 0.3
    assert shares[-1] > 0.9


def test_noise_belongs_to_image_position_and_step(random_masks):
    """An image is filled alike whatever is beside it; other keys, and other steps, have other noise."""
    order = ConfidenceOrder()
    unknown, keys = random_masks(5, 16, 12), torch.arange(5) + 70

    def course(rows):
        steps = start(order, unknown[rows], num_steps=6, keys=keys[rows])
        kept = []
        while (positions := steps.propose()) is not None:
            kept.append(positions[steps.accept(torch.zeros(positions.shape))].view(len(rows), -1))
        return torch.cat(kept, dim=1)

    together = course(torch.arange(5))
    shuffled = torch.tensor([3, 0, 4, 1, 2])
    assert torch.equal(course(shuffled), together[shuffled])
    assert torch.equal(course(torch.tensor([2])), together[2:3])
    same_mask = start(order, torch.ones(2, 16, dtype=torch.bool), num_steps=1 + 1)
    first = same_mask.accept(torch.zeros(2, 16))
    assert not torch.equal(first[0], first[1])


def test_the_mask_of_the_caller_stays():
    """Steps keep their own books."""
    unknown = torch.ones(2, 16, dtype=torch.bool)
    start(ConfidenceOrder(), unknown, num_steps=2).accept(torch.zeros(2, 16))
    assert unknown.all()


@pytest.mark.parametrize("noise", [-1.0, float("nan"), float("inf"), "much"])
def test_noise_out_of_range_is_refused(noise):
    """By the options."""
    with pytest.raises((ValueError, TypeError), match="noise"):
        ConfidenceOrderOptions(noise=noise)
