"""Noise made in registers against that of `KeyedRandom`."""

from typing import no_type_check

import pytest
import torch
import triton
import triton.language as tl

from fluid_heads.kernels.counter_noise import normal_number, random_word, uniform_number
from fluid_heads.kernels.noise_streams import NoiseStreams, noise_positions, num_noise_draws


@triton.jit
@no_type_check
def normal_kernel(keys_pointer, out_pointer, draw, count, HALF_IS_EVEN: tl.constexpr, BLOCK: tl.constexpr):
    """All normal numbers of one draw of one row."""
    row, position = tl.program_id(0), tl.arange(0, BLOCK)
    numbers = normal_number(tl.load(keys_pointer + row), draw, position, (count + 1) // 2, HALF_IS_EVEN)
    tl.store(out_pointer + row * count + position, numbers, mask=position < count)


@triton.jit
@no_type_check
def uniform_kernel(keys_pointer, out_pointer, draw, count, BLOCK: tl.constexpr):
    """All uniform numbers of one draw of one row."""
    row, position = tl.program_id(0), tl.arange(0, BLOCK)
    word = random_word(tl.load(keys_pointer + row), draw, position, count)
    tl.store(out_pointer + row * count + position, uniform_number(word), mask=position < count)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 30, 64, 77])
def test_numbers_are_those_of_keyed_random(keys, count):
    """Uniform numbers are equal to the last bit and normal ones to rounding, in the second draw as in the first."""
    expected, streams = keys(3), NoiseStreams.taken_from(keys(3), num_draws=4)
    block = triton.next_power_of_2(count)
    for draw in range(2):
        uniform, normal = torch.empty(3, count), torch.empty(3, count)
        uniform_kernel[(3,)](streams.keys, uniform, 2 * draw, count, BLOCK=block)
        even = (count + 1) // 2 % 2 == 0
        normal_kernel[(3,)](streams.keys, normal, 2 * draw + 1, count, HALF_IS_EVEN=even, BLOCK=block)
        assert torch.equal(uniform, expected.uniform((count,)))
        torch.testing.assert_close(normal, expected.normal((count,)), atol=2e-6, rtol=1e-6)


def test_a_source_goes_on_after_what_was_taken(keys):
    """A random source whose draws were handed to a kernel continues as if it had made them itself."""
    made, taken = keys(2), keys(2)
    made.normal((5,)), made.normal((6,)), made.normal((7,))
    made_next = made.uniform((4,))
    streams = NoiseStreams.taken_from(taken, num_draws=3)
    assert streams.first_draw == 0
    assert torch.equal(taken.uniform((4,)), made_next)


@pytest.mark.parametrize(("num_steps", "channels"), [(1, 1), (7, 3), (8, 5), (9, 5), (20, 4)])
def test_positions_find_the_noise_of_every_step(keys, num_steps, channels):
    """The table says where a step's numbers lie, also in a last draw that is shorter and has an odd number of them."""
    steps_per_draw = 4
    random = keys(2)
    firsts = range(0, num_steps, steps_per_draw)
    drawn = [random.normal((min(steps_per_draw, num_steps - first), channels)) for first in firsts]
    expected = torch.cat(drawn, dim=1)
    streams = NoiseStreams.taken_from(keys(2), num_draws=num_noise_draws(num_steps, steps_per_draw))
    table = noise_positions(num_steps, channels=channels, steps_per_draw=steps_per_draw)
    for step, (draw, half, first_number) in enumerate(table):
        count = min(steps_per_draw, num_steps - draw * steps_per_draw) * channels
        assert half == (count + 1) // 2
        out = torch.empty(2, count)
        block = triton.next_power_of_2(count)
        normal_kernel[(2,)](streams.keys, out, draw, count, HALF_IS_EVEN=half % 2 == 0, BLOCK=block)
        torch.testing.assert_close(
            out[:, first_number : first_number + channels], expected[:, step], atol=2e-6, rtol=1e-6
        )
