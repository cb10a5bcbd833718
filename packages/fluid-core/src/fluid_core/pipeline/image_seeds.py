"""The seed of each image of a call: the same seed, prompt and settings draw the same image."""

from collections.abc import Sequence

import torch

from fluid_core.errors import InvalidRequestError


def image_seeds(
    count: int,
    seed: int | Sequence[int] | None,
    generator: torch.Generator | Sequence[torch.Generator] | None,
) -> list[int]:
    """Seeds of `count` images: those given, or drawn from one integer or generator, or from one generator for each.

    With neither they differ from call to call. Raises `InvalidRequestError` for both, for a wrong number of them, and
    for seeds outside 0 to 2^63 - 1.
    """
    if seed is not None and generator is not None:
        raise InvalidRequestError("Expected seed or generator, found both. Leave one of them out.")
    if isinstance(seed, Sequence):
        seeds = [int(value) for value in seed]
        if len(seeds) != count:
            raise InvalidRequestError(f"Expected one seed per image ({count}), found {len(seeds)}.")
        if any(not 0 <= value < 2**63 for value in seeds):
            raise InvalidRequestError("Expected seeds from 0 to 2^63 - 1.")
        return seeds
    if isinstance(generator, Sequence):
        if len(generator) != count:
            raise InvalidRequestError(f"Expected one generator per image ({count}), found {len(generator)}.")
        return [_drawn(one) for one in generator]
    if seed is not None and not 0 <= seed < 2**63:
        raise InvalidRequestError(f"Expected a seed from 0 to 2^63 - 1, found {seed}.")
    if generator is None:
        generator = torch.Generator()
        if seed is None:
            generator.seed()
        else:
            generator.manual_seed(seed)
    return [_drawn(generator) for _ in range(count)]


def _drawn(generator: torch.Generator) -> int:
    return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
