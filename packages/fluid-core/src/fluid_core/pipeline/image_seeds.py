"""The seed of each image of a call: the same seed, prompt and settings draw the same image."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.number_types import is_whole_number

GivenSeed = int | np.integer[Any] | Sequence[int] | np.ndarray | Tensor
"""One for all images, from which each gets its own by its place, or one for each."""


def image_seeds(
    count: int,
    seed: GivenSeed | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
) -> list[int]:
    """Seeds of `count` images: those given, or drawn from one integer or generator, or from one generator for each.

    With neither they differ from call to call. Raises `InvalidRequestError` for both, for a wrong number of them, for
    what is no seed or generator, and for seeds outside 0 to 2^63 - 1.
    """
    if seed is not None and generator is not None:
        raise InvalidRequestError("Expected seed or generator, found both. Leave one of them out.")
    if isinstance(seed, np.ndarray | Tensor):
        seed = seed.tolist()
    if isinstance(seed, Sequence) and not isinstance(seed, str | bytes):
        seeds = [_checked(value) for value in seed]
        if len(seeds) != count:
            raise InvalidRequestError(f"Expected one seed per image ({count}), found {len(seeds)}.")
        return seeds
    for one in generator if isinstance(generator, Sequence) else [generator] * (generator is not None):
        if not isinstance(one, torch.Generator):
            raise InvalidRequestError(
                f"Expected a torch.Generator, or a list of them, found one of type {type(one).__name__}."
            )
    if isinstance(generator, Sequence):
        if len(generator) != count:
            raise InvalidRequestError(f"Expected one generator per image ({count}), found {len(generator)}.")
        return [_drawn(one) for one in generator]
    if generator is None:
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(_checked(seed))
    return [_drawn(generator) for _ in range(count)]


def _checked(seed: Any) -> int:
    """The seed as an integer. Raises `InvalidRequestError` for what is none, or out of range."""
    if not is_whole_number(seed) or not 0 <= int(seed) < 2**63:
        raise InvalidRequestError(f"Expected a seed as a whole number from 0 to 2^63 - 1, found {seed!r}.")
    return int(seed)


def _drawn(generator: torch.Generator) -> int:
    return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
