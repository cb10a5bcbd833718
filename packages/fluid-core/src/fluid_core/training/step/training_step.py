"""One step of training: losses of all parts of a batch, one sum of their gradients, one update of the weights."""

import math
from contextlib import AbstractContextManager

import attrs
import torch

from fluid_core.configuration import TrainingConfig
from fluid_core.data.batches import ImageBatch
from fluid_core.errors import NonFiniteLossError
from fluid_core.exchange import BatchShare, EncodedBatch
from fluid_core.model import BatchLoss, FluidModel, TrainingBatch
from fluid_core.training.processes import Processes
from fluid_core.training.sight.model_flops import training_flops
from fluid_core.training.step.gradient_step import (
    follow_gradients,
    gradient_norm,
    learning_rate,
    seed_global_generator,
    step_seed,
)
from fluid_core.training.step.micro_batches import micro_shares, rows_of
from fluid_core.training.step.non_finite import first_non_finite_output, non_finite_gradient, non_finite_loss
from fluid_core.training.step.precision import compute_type, computing_in

Batch = ImageBatch | EncodedBatch


@attrs.frozen(kw_only=True)
class StepResult:
    """What one step came to."""

    loss: BatchLoss
    """Summed over this process's part of the batch, detached."""

    gradient_norm: float
    """Of the gradients of all processes together, before clipping."""

    learning_rate: float


class TrainingStep:
    """Takes the steps of a run, on this process's `share` of every batch.

    Everything random is drawn for the whole batch from the seed and the step, whatever the number of processes and of
    parts that a share is cut into (`training.accumulation_steps`). Raises `ConfigurationError` for more parts than
    images, and for a precision that the device does not have.
    """

    def __init__(
        self,
        model: FluidModel,
        optimizer: torch.optim.Optimizer,
        settings: TrainingConfig,
        *,
        processes: Processes,
        share: BatchShare,
    ) -> None:
        self._model = model
        self._optimizer = optimizer
        self._settings = settings
        self._processes = processes
        self._share = share
        self._parts = micro_shares(share, settings.accumulation_steps)
        self.dtype = compute_type(settings.precision, model.device)
        """What the backbone multiplies in."""

        self.flops_per_image: float | None = None
        """FLOPs of training on one image, counted on the first part of the first batch; None before it."""

    def precision(self) -> AbstractContextManager[object]:
        """The context in which the model computes."""
        return computing_in(self.dtype, self._model.device)

    def take(self, batch: Batch, step: int, *, share_of_time: float) -> StepResult:
        """Step number `step` (from 0) on this process's rows of its batch.

        Raises `NonFiniteLossError`, in all processes, if a loss or gradient of any of them is not finite: it says of
        which component and tensor, and no weight is changed.
        """
        self._optimizer.zero_grad(set_to_none=True)
        losses = [self._add_gradients(batch, step, part) for part in self._parts]
        norm = gradient_norm(self._optimizer, self._processes)
        if not math.isfinite(float(norm)):
            problem = self._problem(batch, step, losses)
            self._optimizer.zero_grad(set_to_none=True)
            raise NonFiniteLossError(problem)
        rate = learning_rate(self._settings, step, share_of_time=share_of_time)
        follow_gradients(self._optimizer, norm, learning_rate=rate, clip_norm=self._settings.gradient_clip_norm)
        return StepResult(loss=_summed(losses), gradient_norm=float(norm), learning_rate=rate)

    def _add_gradients(self, batch: Batch, step: int, part: BatchShare) -> BatchLoss:
        drawn = self._drawn(batch, step, part)
        if self.flops_per_image is None:
            with self.precision():
                self.flops_per_image = training_flops(self._model, drawn) / part.count
            # Dropout has drawn numbers while they were counted.
            seed_global_generator(self._settings.seed, step, first_row=part.first)
        with self.precision():
            loss: BatchLoss = self._model(drawn)
        mean = loss.mean
        # Times one. A loss that is not finite makes all gradients so, which every process sees in their norm: nobody
        # has to wait for the device, or to ask the others, before the backward pass.
        marked = mean * (1.0 + 0.0 * mean.detach())
        marked.backward()  # type: ignore[no-untyped-call]
        return attrs.evolve(loss, total=loss.total.detach())

    def _drawn(self, batch: Batch, step: int, part: BatchShare) -> TrainingBatch:
        """One part of a batch, with all that is random about it."""
        seed = self._settings.seed
        rows = rows_of(batch, slice(part.first - self._share.first, part.first - self._share.first + part.count))
        seed_global_generator(seed, step, first_row=part.first)
        return self._model.prepare_encoded(
            rows if isinstance(rows, EncodedBatch) else self._model.encode(rows.images, rows.captions),
            generator=torch.Generator().manual_seed(step_seed(seed, step)),
            text_drop_probability=self._settings.text_drop_probability,
            share=part,
        )

    def _problem(self, batch: Batch, step: int, losses: list[BatchLoss]) -> str:
        """What is not finite, in words: in a loss of some process, or else in a gradient."""
        own = [non_finite_loss(self._model, loss) for loss in losses]
        # All processes compute all their parts again: they may wait for each other within.
        outputs = [self._first_non_finite_output(batch, step, part) for part in self._parts]
        found = [
            f"{problem}{f' (the first tensor that is not is {output})' if output else ''}"
            for problem, output in zip(own, outputs, strict=True)
            if problem is not None
        ]
        everywhere = [problem for problems in self._processes.gather_json(found) for problem in problems]
        return everywhere[0] if everywhere else non_finite_gradient(self._model)

    def _first_non_finite_output(self, batch: Batch, step: int, part: BatchShare) -> str | None:
        drawn = self._drawn(batch, step, part)
        with self.precision():
            return first_non_finite_output(self._model, drawn)


def _summed(losses: list[BatchLoss]) -> BatchLoss:
    """The loss of several parts of a batch together."""
    if len(losses) == 1:
        return losses[0]
    return BatchLoss(
        total=torch.stack([loss.total for loss in losses]).sum(),
        num_tokens=sum(loss.num_tokens for loss in losses),
        parts={name: torch.stack([loss.parts[name] for loss in losses]).sum() for name in losses[0].parts},
        num_tokens_in_all=losses[0].num_tokens_in_all,
    )
