"""Hands a `KeyedRandom` over to kernels: which keys, and which draws a sequence of steps uses."""

import attrs
from jaxtyping import Int
from torch import Tensor

from fluid_core.keyed_random import KeyedRandom


@attrs.frozen(kw_only=True, eq=False)
class NoiseStreams:
    """The keys of some rows, and the number of the first draw that is a kernel's to make."""

    keys: Int[Tensor, "rows"]
    first_draw: int

    @classmethod
    def taken_from(cls, random: KeyedRandom, *, num_draws: int) -> "NoiseStreams":
        """The next `num_draws` draws of `random`, which goes on after them as if it had made them itself."""
        keys, first_draw = random.hand_over(num_draws)
        # Kernels read one key after the other; some of a larger source may lie apart.
        return cls(keys=keys.contiguous(), first_draw=first_draw)


def num_noise_draws(num_steps: int, steps_per_draw: int) -> int:
    """Draws that make normal numbers for `num_steps` steps, `steps_per_draw` of them at a time."""
    return -(-num_steps // steps_per_draw)


def noise_positions(num_steps: int, *, channels: int, steps_per_draw: int) -> list[tuple[int, int, int]]:
    """Where the noise of every step lies: the draw (from 0), its number of pairs, and the step's first number.

    For noise drawn as `random.normal((count, channels))`, with a count of `steps_per_draw` steps and what is left for
    the last draw.
    """
    rows = []
    for step in range(num_steps):
        draw, within = divmod(step, steps_per_draw)
        count = min(steps_per_draw, num_steps - draw * steps_per_draw)
        rows.append((draw, (count * channels + 1) // 2, within * channels))
    return rows
