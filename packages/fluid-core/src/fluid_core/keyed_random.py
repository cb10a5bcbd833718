"""Random numbers that belong to an image, not to a batch.

Every row of a `KeyedRandom` has a key of its own, and its numbers depend on that key and on how many draws came
before: never on the other rows, on the batch size or on the device. So an image is drawn from the same numbers
whatever else is in the batch. The generator is Philox-4x32-10 (Salmon et al., SC 2011), which is also what GPU
kernels compute in registers: a fused sampler seeded by `seeds()` can produce the very same noise.
"""

import math
from collections.abc import Iterator
from typing import TypeVar

import numpy
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_WEYL_0, _WEYL_1 = 0x9E3779B9, 0xBB67AE85
_NUM_ROUNDS = 10
_MOST_IN_NUMPY = 1 << 14

_Words = TypeVar("_Words", Tensor, NDArray[numpy.int64])


def _philox(c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, k0: Tensor, k1: Tensor) -> tuple[Tensor, ...]:
    """Ten rounds on 32-bit words kept in 64-bit integers; counters and keys broadcast against each other."""
    words = c0, c1, c2, c3, k0, k1
    is_small = c0.ndim > 0 and c0.numel() * k0.numel() <= _MOST_IN_NUMPY
    if not is_small or any(type(word) is not Tensor or not word.is_cpu for word in words):
        return _rounds(*words)
    # The same operators on few numbers: what NumPy does around each of them takes a quarter of torch's time.
    return tuple(torch.from_numpy(word) for word in _rounds(*(word.numpy() for word in words)))


def _rounds(c0: _Words, c1: _Words, c2: _Words, c3: _Words, k0: _Words, k1: _Words) -> tuple[_Words, ...]:
    for _ in range(_NUM_ROUNDS):
        # A product may need all 64 bits and wrap into the sign; the bits themselves are right.
        product_0, product_1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
        c0, c2 = ((product_1 >> 32) & _MASK) ^ c1 ^ k0, ((product_0 >> 32) & _MASK) ^ c3 ^ k1
        c1, c3 = product_1 & _MASK, product_0 & _MASK
        k0, k1 = (k0 + _WEYL_0) & _MASK, (k1 + _WEYL_1) & _MASK
    return c0, c1, c2, c3


def philox_4x32(counter: Int[Tensor, "*shape 4"], key: Int[Tensor, "*shape 2"]) -> Int[Tensor, "*shape 4"]:
    """Philox-4x32 with ten rounds: four random 32-bit words (as non-negative int64) for each counter and key."""
    return torch.stack(_philox(*counter.unbind(-1), *key.unbind(-1)), dim=-1)


class KeyedRandom:
    """A source of random numbers with one independent stream per row.

    `keys` are 63-bit integers, one per row. A row stands for whatever the caller says: an image when an order
    draws permutations, one token of one image when a head samples.
    """

    def __init__(self, keys: Int[Tensor, "rows"]) -> None:
        self._keys = keys
        self._num_draws = 0

    @classmethod
    def from_generator(
        cls, generator: torch.Generator, num_rows: int, device: torch.device | str = "cpu"
    ) -> "KeyedRandom":
        """Rows with fresh keys drawn from `generator` (which lives on its own device; keys move to `device`)."""
        keys = torch.randint(2**63 - 1, (num_rows,), generator=generator, device=generator.device)
        return cls(keys.to(device))

    @property
    def num_rows(self) -> int:
        """Number of rows, each with its own stream."""
        return int(self._keys.shape[0])

    def rows(self, index: Tensor | slice) -> "KeyedRandom":
        """The same streams, from their beginning, for the selected rows (an index, a mask or a slice)."""
        return KeyedRandom(self._keys[index])

    def child(self, label: int) -> "KeyedRandom":
        """Streams for one sub-task of every row; different labels are independent of each other and of the parent."""
        return self.children(torch.full((self.num_rows, 1), label, dtype=torch.int64, device=self._keys.device))

    def children(self, labels: Int[Tensor, "rows count"]) -> "KeyedRandom":
        """Streams for `count` sub-tasks of each row, such as the positions to sample in each image.

        The result has `rows * count` rows, those of row 0 first.
        """
        # Counter word 3 tells children (1) from draws (0), so no child can repeat numbers of its parent.
        zero = torch.zeros_like(labels)
        high, low, _, _ = _philox(labels & _MASK, labels >> 32, zero, zero + 1, *self._key_words())
        return KeyedRandom(((high << 31) ^ low).flatten())

    def seeds(self) -> Int[Tensor, "rows"]:
        """A fresh non-negative seed per row, for kernels that generate their own noise from a counter."""
        words = self._words(2)
        return ((words[..., 0] & 0x7FFFFFFF) << 32) | words[..., 1]

    def hand_over(self, num_draws: int) -> tuple[Int[Tensor, "rows"], int]:
        """The keys, and the number of the first of the next `num_draws` draws, which somebody else will make.

        For kernels that compute the numbers themselves. The streams go on after them as if they had been drawn here.
        """
        first = self._num_draws
        self._num_draws += num_draws
        return self._keys, first

    def uniform(self, shape: tuple[int, ...] = ()) -> Float[Tensor, "rows *shape"]:
        """Uniform numbers in [0, 1): `shape` of them for every row, in float32 with 24 random bits."""
        count = math.prod(shape)
        words = self._words(count)
        return ((words >> 8).to(torch.float32) * 2.0**-24).view(-1, *shape)

    def uniform_in_groups(self, shape: tuple[int, ...], num_rows: int) -> Iterator[Float[Tensor, "group *shape"]]:
        """The numbers of one call of `uniform`, `num_rows` rows at a time, for who need not hold all of them at once.

        They count as one draw from the moment of the call. Raises `ValueError` for less than one row.
        """
        if num_rows < 1:
            raise ValueError(f"Expected groups of one row or more, found {num_rows}.")
        groups = [KeyedRandom(keys) for keys in self._keys.split(num_rows)]  # type: ignore[no-untyped-call]
        for group in groups:
            group._num_draws = self._num_draws
        self._num_draws += 1
        return (group.uniform(shape) for group in groups)

    def normal(self, shape: tuple[int, ...] = ()) -> Float[Tensor, "rows *shape"]:
        """Standard normal numbers (Box-Muller): `shape` of them for every row, in float32."""
        count = math.prod(shape)
        half = (count + 1) // 2
        words = self._words(2 * half)
        # (0, 1]: the logarithm must stay finite.
        radius_draw = ((words[:, :half] >> 8) + 1).to(torch.float32) * 2.0**-24
        angle = (words[:, half:] >> 8).to(torch.float32) * (2.0 * math.pi * 2.0**-24)
        radius = torch.sqrt(-2.0 * torch.log(radius_draw))
        both = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], dim=1)
        return both[:, :count].reshape(-1, *shape)

    def integers(self, high: int, shape: tuple[int, ...] = ()) -> Int[Tensor, "rows *shape"]:
        """Integers from 0 to `high - 1`, for `high` up to 2^24."""
        return (self.uniform(shape) * high).to(torch.int64).clamp_(max=high - 1)

    def permutation(self, length: int) -> Int[Tensor, "rows length"]:
        """One random permutation of 0..length-1 per row."""
        return self.uniform((length,)).argsort(dim=1, stable=True)

    def _key_words(self) -> tuple[Int[Tensor, "rows 1"], Int[Tensor, "rows 1"]]:
        keys = self._keys[:, None]
        return keys & _MASK, (keys >> 32) & _MASK

    def _words(self, count: int) -> Int[Tensor, "rows count"]:
        blocks = torch.arange((count + 3) // 4, device=self._keys.device)
        zero = torch.zeros_like(blocks)
        words = _philox(blocks, zero + self._num_draws, zero, zero, *self._key_words())
        self._num_draws += 1
        return torch.cat([word.expand(self.num_rows, -1) for word in words], dim=1)[:, :count]
