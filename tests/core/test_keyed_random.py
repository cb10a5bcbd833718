"""Keyed random numbers: the generator itself, and independence of rows."""

import pytest
import torch

from fluid_core.keyed_random import KeyedRandom, philox_4x32


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
@pytest.mark.parametrize("num_rows", [1, 20_000])
def test_philox_matches_the_published_known_answers(counter, key, expected, num_rows):
    """The three vectors published with the generator come out word for word, few or many at a time."""
    words = philox_4x32(torch.tensor([counter] * num_rows), torch.tensor([key] * num_rows))
    assert words.shape == (num_rows, 4)
    assert torch.equal(words, torch.tensor([expected]).expand(num_rows, 4))


def test_a_row_draws_the_same_whatever_else_is_in_the_batch():
    """Normals, uniforms, permutations and seeds of a row depend on its key alone."""
    keys = torch.tensor([11, 22, 33])
    together, alone = KeyedRandom(keys), KeyedRandom(keys[1:2])
    for draw in (
        lambda r: r.normal((5, 3)),
        lambda r: r.uniform((7,)),
        lambda r: r.permutation(64),
        lambda r: r.seeds(),
        lambda r: r.integers(10, (4,)),
    ):
        assert torch.equal(draw(together)[1], draw(alone)[0])


def test_successive_draws_children_and_rows_differ():
    """No stream repeats another: later draws, children, positions and neighbouring keys are all new numbers."""
    random = KeyedRandom(torch.arange(4))
    first, second = random.uniform((1000,)), random.uniform((1000,))
    child, other = random.child(0).uniform((1000,)), random.child(1).uniform((1000,))
    positions = random.children(torch.arange(2, 5).expand(4, 3)).uniform((1000,))
    streams = torch.cat([first, second, child, other, positions])
    correlation = torch.corrcoef(streams) - torch.eye(len(streams))
    assert correlation.abs().max() < 0.15
    assert len(torch.unique(streams[:, 0])) == len(streams)


def test_normals_are_standard_normal_and_uniforms_uniform():
    """Moments and tails of a million draws are those of the distributions, within five standard errors."""
    random = KeyedRandom(torch.arange(1000))
    normal, uniform = random.normal((1001,)).flatten().double(), random.uniform((1000,)).flatten().double()
    assert abs(normal.mean()) < 5e-3
    assert abs(normal.var() - 1.0) < 1e-2
    assert abs((normal.abs() > 1.959964).double().mean() - 0.05) < 1.1e-3
    assert abs(uniform.mean() - 0.5) < 2e-3
    assert abs(uniform.var() - 1 / 12) < 1e-3
    assert uniform.min() >= 0.0
    assert uniform.max() < 1.0


def test_permutations_are_uniform():
    """Every permutation of three things comes up about equally often."""
    permutations = KeyedRandom(torch.arange(6000)).permutation(3)
    codes = (permutations * torch.tensor([9, 3, 1])).sum(dim=1)
    _, counts = torch.unique(codes, return_counts=True)
    assert len(counts) == 6
    assert counts.min() > 850


def test_keys_come_from_a_generator():
    """The same generator state gives the same keys; integers stay below their bound."""
    first = KeyedRandom.from_generator(torch.Generator().manual_seed(3), 5)
    second = KeyedRandom.from_generator(torch.Generator().manual_seed(3), 5)
    assert torch.equal(first.normal((4,)), second.normal((4,)))
    assert first.num_rows == 5
    assert KeyedRandom(torch.arange(100)).integers(7, (100,)).max() == 6


@pytest.mark.parametrize("num_rows", [1, 2, 5, 7, 100])
def test_groups_of_rows_hold_the_numbers_of_one_draw(num_rows):
    """Drawn a few rows at a time they are those of `uniform`, wherever the stream stands, and count as one draw."""
    whole, grouped = (KeyedRandom(torch.arange(7) + 2**40) for _ in range(2))
    for source in (whole, grouped):
        source.uniform((3,))
    groups = grouped.uniform_in_groups((4, 5), num_rows)
    # The stream has moved on before the first group is asked for.
    assert torch.equal(grouped.child(3).uniform(), whole.child(3).uniform())
    expected, following = whole.uniform((4, 5)), whole.uniform()
    assert torch.equal(grouped.uniform(), following)
    found = list(groups)
    assert max(len(group) for group in found) == min(num_rows, 7)
    assert torch.equal(torch.cat(found), expected)
    with pytest.raises(ValueError, match="one row or more, found 0"):
        grouped.uniform_in_groups((4,), 0)


def test_draws_handed_over_are_those_a_kernel_must_make():
    """Keys and the number of the first draw tell which numbers they are; the streams go on behind them."""
    keys = torch.tensor([5, 2**62])
    expected, found = KeyedRandom(keys), KeyedRandom(keys)
    expected.uniform((3,))
    found.uniform((3,))
    handed_keys, first = found.hand_over(2)
    assert torch.equal(handed_keys, keys)
    assert first == 1
    expected.normal((2,))
    expected.normal((2,))
    assert torch.equal(found.uniform((4,)), expected.uniform((4,)))
