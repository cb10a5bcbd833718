"""Running an autoencoder in the numbers of its weights, whatever surrounds it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from fluid_core.errors import InvalidRequestError


@contextmanager
def own_precision(autoencoder: Any) -> Iterator[torch.dtype]:
    """Gives the float type of the weights, with autocast off: latents must be the same in a trainer and in a cache.

    Raises `InvalidRequestError` if the weights were cast to float16 and the autoencoder's configuration forbids it.
    """
    weight = next(autoencoder.parameters())
    if weight.dtype == torch.float16 and autoencoder.config.get("force_upcast"):
        raise InvalidRequestError(
            "Expected this autoencoder in float32 or bfloat16, found its weights cast to float16, in which it "
            "overflows (force_upcast in its configuration). Cast the model to torch.bfloat16 instead."
        )
    with torch.autocast(weight.device.type, enabled=False):
        yield weight.dtype
