"""Precision and recall: by counting balls one by one, against torch-fidelity, and in cases that are known."""

import numpy as np
import pytest
import torch

from fluid_core.errors import InvalidRequestError
from fluid_core.evaluation.precision_recall import precision_recall


def inside(vectors, members, num_neighbours):
    """Share of vectors in any ball, ball by ball, with numpy and differences of coordinates."""
    radii = [sorted(np.linalg.norm(members - one, axis=1))[num_neighbours] for one in members]
    hits = [
        any(np.linalg.norm(one - centre) <= radius for centre, radius in zip(members, radii, strict=True))
        for one in vectors
    ]
    return sum(hits) / len(hits)


def normal(count, width, seed):
    """Vectors of a normal distribution."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("num_neighbours", [1, 3, 5])
def test_it_agrees_with_counting_ball_by_ball(num_neighbours):
    """Both shares are those that the definition gives, for sets of different sizes."""
    real, generated = normal(40, 6, 1), normal(30, 6, 2) * 0.8 + 0.3
    found = precision_recall(real, generated, num_neighbours=num_neighbours)
    one, other = real.double().numpy(), generated.double().numpy()
    assert found.precision == pytest.approx(inside(other, one, num_neighbours))
    assert found.recall == pytest.approx(inside(one, other, num_neighbours))
    assert 0 < found.recall < 1
    assert (found.num_images, found.num_neighbours) == ((40, 30), num_neighbours)


def test_it_agrees_with_torch_fidelity():
    """On the same vectors torch-fidelity 0.4.0 finds 0.8833333 and 0.2145 (its values, recorded)."""
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(2000, 64, generator=generator)
    generated = torch.randn(1500, 64, generator=generator) * 0.9 + 0.1
    found = precision_recall(real, generated)
    assert found.precision == pytest.approx(1325 / 1500)
    assert found.recall == pytest.approx(429 / 2000)


def test_known_cases():
    """A set has all of itself, also far from zero and with repeats; sets far apart have nothing of each other."""
    some = normal(50, 8, 0)
    for vectors in (some, some + 1e6, some.repeat(6, 1), torch.ones(10, 3)):
        found = precision_recall(vectors, vectors.flip(0))
        assert (found.precision, found.recall) == (1.0, 1.0)
    apart = precision_recall(some, some + 100.0)
    assert (apart.precision, apart.recall) == (0.0, 0.0)


def test_precision_and_recall_are_not_mixed_up():
    """A generator that draws one kind of two is precise and misses half."""
    kinds = torch.cat([normal(100, 4, 0), normal(100, 4, 1) + 50.0])
    found = precision_recall(kinds, normal(100, 4, 2) * 0.5)
    assert found.precision > 0.95
    assert found.recall < 0.5


@pytest.mark.parametrize(
    ("real", "generated"),
    [
        (torch.zeros(3, 4), torch.zeros(9, 4)),
        (torch.zeros(9, 4), torch.zeros(2, 4)),
        (torch.full((9, 4), float("nan")), torch.zeros(9, 4)),
    ],
)
def test_sets_without_an_answer_are_refused(real, generated):
    """Too few vectors on either side, or values that are not finite."""
    with pytest.raises(InvalidRequestError):
        precision_recall(real, generated)
