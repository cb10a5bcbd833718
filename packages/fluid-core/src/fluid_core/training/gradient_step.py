"""One update of the weights from a loss, and the checks that it is sound."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from fluid_core.configuration import TrainingCourse
from fluid_core.errors import NonFiniteLossError
from fluid_core.training.learning_rate import learning_rate_factor
from fluid_core.training.processes import Processes


def step_seed(seed: int, step: int) -> int:
    """The seed of all that is random in one step of a run."""
    # A prime apart, so that runs with neighbouring seeds do not share steps.
    return (seed * 1_000_000_007 + step) % 2**63


def seed_global_generator(seed: int, step: int) -> None:
    """Seed torch's own generator for one step: with other numbers than those of `step_seed`.

    Parts with dropout draw from it, and plugins that do not know better.
    """
    torch.manual_seed((step_seed(seed, step) + 2**62) % 2**63)


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
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if processes is not None:
        processes.sum_gradients(parameters)
    trained = [p for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in trained])
    # Before clipping, which would spread what is not finite to all gradients.
    if not math.isfinite(float(norm)):
        raise NonFiniteLossError(non_finite())
    if clip_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(trained, clip_norm, norm)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    return float(norm)


def non_finite_gradient(module: nn.Module) -> str:
    """Which gradients of a module are not finite, in words."""
    names = [n for n, p in module.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    others = f" and of {len(names) - 1} more parameters" if len(names) > 1 else ""
    return f"the gradient of {names[0]}{others}" if names else "the norm of all gradients together"


def non_finite_cause(module: nn.Module) -> str:
    """A sentence on whether the weights of a module are still finite."""
    weights = [name for name, p in module.named_parameters() if not bool(p.isfinite().all())]
    return f"The weights {weights[0]} are already not finite" if weights else "All weights are finite"
