"""Masks of unknown positions, and courses of generation followed to their end."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import Grid


def follow_course(
    order,
    unknown: Tensor,
    *,
    grid: Grid | None = None,
    num_steps: int | None = None,
    seed: int = 0,
    confidence: Callable[[Tensor, int], Tensor] | None = None,
) -> tuple[Tensor, list[int]]:
    """All positions in the order they were kept, and how many at each step.

    `confidence` is what the order is told of the positions of a step.
    """
    grid = grid or Grid(height=1, width=unknown.shape[1])
    keys = torch.arange(len(unknown)) + 1000 * seed
    steps = order.generation(unknown, grid, num_steps=num_steps, random=KeyedRandom(keys))
    kept: list[Tensor] = []
    while (positions := steps.propose()) is not None:
        keep = steps.accept(None if confidence is None else confidence(positions, len(kept)))
        kept.append(positions[keep].view(len(unknown), -1))
    assert len(kept) == steps.num_steps
    return torch.cat(kept, dim=1), [part.shape[1] for part in kept]


def masks_of_unknown(batch: int, length: int, num_unknown: int, seed: int = 0) -> Tensor:
    """Random masks with the same number of unknown positions in each row."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, length, generator=generator).argsort(dim=1).argsort(dim=1) < num_unknown


@pytest.fixture
def follow() -> Callable[..., tuple[Tensor, list[int]]]:
    """`follow_course`."""
    return follow_course


@pytest.fixture
def random_masks() -> Callable[..., Tensor]:
    """`masks_of_unknown`."""
    return masks_of_unknown
