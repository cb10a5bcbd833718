"""In what precision a run multiplies: autocast for the backbone, float32 for weights and losses."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from fluid_core.errors import ConfigurationError

Precision = Literal["auto", "float32", "bfloat16"]


def compute_type(precision: Precision, device: torch.device) -> torch.dtype:
    """The type that `training.precision` stands for on `device`.

    Raises `ConfigurationError` for `bfloat16` on a device that does not have it.
    """
    has_it = device.type == "cpu" or (device.type == "cuda" and torch.cuda.is_bf16_supported())
    if precision == "bfloat16" and not has_it:
        raise ConfigurationError(
            f"training.precision is 'bfloat16', which {device} can not multiply in. Set it to 'float32' or 'auto'."
        )
    wanted = precision == "bfloat16" or (precision == "auto" and device.type == "cuda" and has_it)
    return torch.bfloat16 if wanted else torch.float32


def computing_in(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[object]:
    """A context in which matrix products are in `dtype`; for float32 nothing changes."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype=dtype)
