"""Steps that are left out because a loss or gradient was not finite, and when that is enough."""

from collections.abc import Sequence
from pathlib import Path

from fluid_core.configuration import TrainingConfig
from fluid_core.errors import NonFiniteLossError
from fluid_core.model import FluidModel
from fluid_core.training.processes import Processes
from fluid_core.training.run.folder import how_to_go_on
from fluid_core.training.sight.progress import TrainingProgress
from fluid_core.training.step.non_finite import keep_batch, non_finite_cause


class SkippedSteps:
    """Decides by `training.on_non_finite` and counts steps left out in a row, alike in all processes."""

    def __init__(
        self, folder: Path, settings: TrainingConfig, processes: Processes, progress: TrainingProgress
    ) -> None:
        self._folder = folder
        self._settings = settings
        self._processes = processes
        self._progress = progress
        self._num_in_a_row = 0

    def taken(self) -> None:
        """A step was taken."""
        self._num_in_a_row = 0

    def skip_or_stop(
        self,
        problem: NonFiniteLossError,
        model: FluidModel,
        step: int,
        captions: Sequence[str],
        items: Sequence[int] | None,
    ) -> None:
        """Go on after `problem` in `step` (from 1), or raise it with advice.

        `captions` and `items` are those of this process's rows; the batch of all processes is written to
        `non_finite/`.
        """
        batches = self._processes.gather_json([list(captions), None if items is None else list(items)])
        all_captions = [caption for part, _ in batches for caption in part]
        all_items = None if items is None else [item for _, part in batches for item in part]
        place = "its batch is in non_finite/"
        if self._processes.is_first:
            place = keep_batch(self._folder, step=step, problem=str(problem), captions=all_captions, items=all_items)
        self._num_in_a_row += 1
        at_most = self._settings.max_skipped_steps
        skips = self._settings.on_non_finite == "skip"
        if skips and self._num_in_a_row <= at_most:
            self._progress.note(
                f"Step {step}: {problem}. The step is left out ({self._num_in_a_row} in a row, of at most {at_most}); "
                f"{place}."
            )
            return
        too_many = f" It is number {self._num_in_a_row} in a row, of at most {at_most} to leave out." if skips else ""
        raise NonFiniteLossError(
            f"Step {step}: {problem}. {non_finite_cause(model)}; the step was not taken and no checkpoint was changed; "
            f"{place}. First captions: {all_captions[:3]}.{too_many} Lower training.learning_rate, set "
            f"training.gradient_clip_norm{how_to_go_on(self._folder)}"
        ) from problem
