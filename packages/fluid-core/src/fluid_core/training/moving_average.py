"""Exponential moving average of the trained weights: what sampling and evaluation use."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovingAverage:
    """Follows the trainable parameters of a model with decay `decay` per step.

    The decay warms up as (1 + steps) / (10 + steps), so that a short run averages over its last tenth or so instead of
    remembering its initial weights; `decay` is the ceiling it rises to (0.9999 in the paper).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.weights: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._parameters.items()}

    def decay_at(self, step: int) -> float:
        """Decay used after training step `step` (from 0)."""
        return min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the parameters as they are after training step `step`."""
        averages = list(self.weights.values())
        current = [p.detach() for p in self._parameters.values()]
        torch._foreach_lerp_(averages, current, 1.0 - self.decay_at(step))

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Continue from saved averages."""
        for name, average in self.weights.items():
            average.copy_(weights[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the model for the length of a block."""
        trained = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._put(self.weights)
        try:
            yield
        finally:
            self._put(trained)

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(weights[name])
