"""Where autocast ends: heads get hidden vectors in single precision and compute their losses in it."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast_is_on(device: torch.device) -> bool:
    """Whether matrix products on `device` are cast at present."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def single_precision(hidden: Tensor) -> tuple[Tensor, AbstractContextManager[object]]:
    """`hidden` as autocast's surroundings have it, float32, and a context in which autocast is off.

    Without autocast both leave everything as it is: the weights may then be of any type.
    """
    if not autocast_is_on(hidden.device):
        return hidden, nullcontext()
    return hidden.float(), torch.autocast(hidden.device.type, enabled=False)
