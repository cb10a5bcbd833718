"""One update of the weights from a loss, and the checks that it is sound."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fluid_core.configuration import TrainingCourse
from fluid_core.errors import NonFiniteLossError
from fluid_core.training.processes import Processes
from fluid_core.training.sharding.divided_tensors import clip_gradients, total_norm
from fluid_core.training.step.learning_rate import learning_rate_factor


def step_seed(seed: int, step: int) -> int:
    """The seed of all that is random in one step of a run."""
    # A prime apart, so that runs with neighbouring seeds do not share steps.
    return (seed * 1_000_000_007 + step) % 2**63


def seed_global_generator(seed: int, step: int, *, first_row: int = 0) -> None:
    """Seed torch's own generator for one step: with other numbers than those of `step_seed`.

    Parts with dropout draw from it, and plugins that do not know better. `first_row` is that of the part of the batch
    that is computed next: without it all parts would drop the same.
    """
    # An odd factor far from the step's, so that rows of one step do not meet another step.
    torch.manual_seed((step_seed(seed, step) + 2**62 + first_row * 0x9E3779B97F4A7C15) % 2**63)


def learning_rate(course: TrainingCourse, step: int, *, share_of_time: float) -> float:
    """The rate at `step` (from 0) of a course."""
    return course.learning_rate * learning_rate_factor(
        step,
        num_steps=course.num_steps,
        warmup_steps=course.warmup_steps,
        schedule=course.schedule,
        share_of_time=share_of_time,
    )


def gradient_step(
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    *,
    learning_rate: float,
    clip_norm: float | None,
    non_finite: Callable[[], str],
    processes: Processes | None = None,
) -> float:
    """Move the weights down the gradient of a scalar `loss`; the norm of all gradients together, before clipping.

    Of several `processes`, each brings its part of the loss. Raises `NonFiniteLossError` with the text of
    `non_finite` if that norm is not finite; no weight is changed then.
    """
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = gradient_norm(optimizer, processes or Processes())
    if not math.isfinite(float(norm)):
        raise NonFiniteLossError(non_finite())
    follow_gradients(optimizer, norm, learning_rate=learning_rate, clip_norm=clip_norm)
    return float(norm)


def gradient_norm(optimizer: torch.optim.Optimizer, processes: Processes) -> Tensor:
    """Sum the gradients of all processes, in place; the norm of all of them together, a scalar."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    processes.sum_gradients(parameters)
    return total_norm([p.grad for p in parameters if p.grad is not None])


def follow_gradients(
    optimizer: torch.optim.Optimizer, norm: Tensor, *, learning_rate: float, clip_norm: float | None
) -> None:
    """Clip gradients whose norm is `norm` and move the weights.

    A norm that is not finite is for the caller to find: clipping would spread it to all gradients.
    """
    if clip_norm is not None:
        trained = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        clip_gradients(trained, clip_norm, norm)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
