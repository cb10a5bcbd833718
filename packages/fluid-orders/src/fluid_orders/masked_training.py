"""How every bidirectional order trains: which tokens of an image are shown, and which are to be predicted."""

import math

import torch

from fluid_core.exchange import TrainingView
from fluid_core.token_space import Grid


def masked_view(batch_size: int, grid: Grid, *, generator: torch.Generator, device: torch.device) -> TrainingView:
    """A random permutation and a mask ratio of its own for every sample (paper, section 4).

    With r uniform in [0, 1), the share of predicted tokens is cos(pi/2 * r), 2/pi on average (MaskGIT's
    cosine schedule, which the paper takes over). Their number is rounded up: at least one token is
    predicted, and the empty canvas, from which every generation starts, is met in training.

    Since any subset may be shown, a model trained so can be asked to generate in any order.
    """
    order = torch.rand(batch_size, grid.length, generator=generator).argsort(dim=1)
    share = torch.cos(math.pi / 2 * torch.rand(batch_size, generator=generator))
    num_predicted = (share * grid.length).ceil().long().clamp_(1, grid.length)
    return TrainingView(order=order.to(device), num_known=(grid.length - num_predicted).to(device))
