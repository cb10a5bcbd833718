"""The course of a generation fixed in advance."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fluid_core.errors import InvalidRequestError
from fluid_core.planned_steps import PlannedSteps


@settings(deadline=None)
@given(st.lists(st.integers(1, 7), max_size=12), st.integers(1, 3))
def test_steps_walk_through_the_order(sizes: list[int], batch: int):
    """Proposals, put together, are the order itself, in the sizes asked for, and all is kept."""
    order = torch.stack([torch.randperm(sum(sizes)) for _ in range(batch)])
    steps = PlannedSteps(order, sizes)
    assert steps.num_steps == len(sizes)
    seen = [torch.empty(batch, 0, dtype=torch.int64)]
    while (positions := steps.propose()) is not None:
        assert positions.shape == (batch, sizes[len(seen) - 1])
        kept = steps.accept(torch.rand(positions.shape))
        assert kept.dtype == torch.bool
        assert kept.all()
        seen.append(positions)
    torch.testing.assert_close(torch.cat(seen, dim=1), order, rtol=0, atol=0)
    assert len(seen) - 1 == len(sizes)


def test_proposing_twice_gives_the_same_positions():
    """Only `accept` moves on to the next step; its confidence may be left out."""
    steps = PlannedSteps(torch.tensor([[2, 0, 1]]), [1, 2])
    assert steps.propose().tolist() == steps.propose().tolist() == [[2]]
    steps.accept(None)
    assert steps.propose().tolist() == [[0, 1]]
    steps.accept(None)
    assert steps.propose() is None
    assert steps.propose() is None


@pytest.mark.parametrize("sizes", [[1, 1], [3, 1], [3, 0], [4, -1]])
def test_sizes_that_do_not_cut_the_order_are_refused(sizes: list[int]):
    """Sizes must be positive and sum to the unknown positions."""
    with pytest.raises(InvalidRequestError, match="sum to the 3 unknown positions"):
        PlannedSteps(torch.arange(3)[None], sizes)


def test_nothing_unknown_is_a_course_without_steps():
    """An order of no positions ends before it begins."""
    steps = PlannedSteps(torch.empty(2, 0, dtype=torch.int64), ())
    assert steps.num_steps == 0
    assert steps.propose() is None
