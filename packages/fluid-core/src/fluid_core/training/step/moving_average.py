"""Exponential moving average of the trained weights: what sampling and evaluation use."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fluid_core.training.sharding.divided_tensors import local


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
        # Every process moves its own part of what is divided among them.
        averages = [local(average) for average in self.weights.values()]
        current = [local(p.detach()) for p in self._parameters.values()]
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


def too_short_for_average(decay: float, num_steps: int) -> str | None:
    """What to tell about a run of `num_steps` that is shorter than what its average looks back on; None if it is not.

    The warm-up keeps such an average from remembering the initial weights, but its decay never gets to `decay`.
    """
    horizon = 1.0 / (1.0 - decay)
    # One over a decay such as 0.99 is not quite a whole number.
    if num_steps >= round(horizon, 6):
        return None
    reached = min(decay, num_steps / (num_steps + 9))
    return (
        f"training.ema_decay = {decay} averages the weights of about {horizon:.0f} steps, and this run has "
        f"{num_steps}: the warm-up of the decay ends at {reached:.4g}, an average of about the last "
        f"{1.0 / (1.0 - reached):.0f} steps. Lower training.ema_decay if the run is meant to be this short; the raw "
        "weights are in model-raw."
    )
