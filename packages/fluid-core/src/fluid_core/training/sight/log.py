"""What a run writes about its steps: rows of metrics, TensorBoard events, and skipped pictures."""

from pathlib import Path
from typing import Any

import torch

from fluid_core.configuration import TrainingConfig
from fluid_core.data.skipped_items import SkippedItems
from fluid_core.training.processes import Processes
from fluid_core.training.sight.event_files import EventFiles
from fluid_core.training.sight.figures import RunFigures
from fluid_core.training.sight.metrics import MetricsFile
from fluid_core.training.sight.progress import TrainingProgress
from fluid_core.training.sight.skipped_file import SkippedFile
from fluid_core.training.step.non_finite import num_left_out
from fluid_core.training.step.training_step import StepResult

EVENTS = "tensorboard"
"""Below the folder of a run."""


class RunLog:
    """Writes the figures of a run in `folder`, of which the first process writes most.

    `metrics.jsonl` has a row every `training.log_every` steps: of loss, its parts and the gradient norm over all
    processes; of speed since this process started; and of the first process's memory. Rows after `step` are dropped.
    Raises `MissingPackageError` if TensorBoard is asked for and not there.
    """

    def __init__(
        self, folder: Path, settings: TrainingConfig, processes: Processes, progress: TrainingProgress, *, step: int
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._processes = processes
        self._progress = progress
        # What may be refused comes first.
        wanted = processes.is_first and settings.tensorboard
        self._events = EventFiles(folder / EVENTS, resume_step=step) if wanted else None
        self._metrics = MetricsFile(folder / "metrics.jsonl", resume_step=step) if processes.is_first else None
        self.skipped = SkippedFile(folder, processes)
        """Pictures that were left out."""

    def row(self, *, step: int, **values: Any) -> None:
        """Add one row; only the first process does."""
        if self._metrics is not None:
            self._metrics.write(step=step, **values)
        if self._events is not None:
            self._events.write(step=step, **values)

    def step(
        self,
        step: int,
        result: StepResult | None,
        skipped: SkippedItems,
        figures: RunFigures,
        *,
        images_per_second: float,
        seconds: float,
    ) -> None:
        """Log a step, in all processes; `result` is None for one that was left out, which adds no row of its own."""
        self.skipped.add(skipped.listed.values(), when="training")
        if result is None:
            return
        loss = result.loss
        own = torch.stack([loss.total.detach(), *loss.parts.values()]).double()
        sums = self._processes.sum(torch.cat([own, own.new_tensor([loss.num_tokens, len(skipped)])])).tolist()
        num_tokens = sums[-2]
        if not self._processes.is_first:
            return
        now = figures.figures(since_here=True)
        self._progress.machine(flops_utilisation=now.flops_utilisation, memory_bytes=now.memory_bytes)
        self.row(
            step=step,
            loss=sums[0] / num_tokens,
            **{name: total / num_tokens for name, total in zip(loss.parts, sums[1:-2], strict=True)},
            gradient_norm=result.gradient_norm,
            learning_rate=result.learning_rate,
            images_per_second=images_per_second,
            seconds=seconds,
            seconds_left=self._progress.seconds_left,
            model_flops_utilisation=now.flops_utilisation,
            memory_bytes=now.memory_bytes,
            num_skipped_images=int(sums[-1]),
            num_skipped_steps=num_left_out(self._folder, until=step),
        )

    def close(self) -> None:
        """Write what is still in memory."""
        if self._events is not None:
            self._events.close()
