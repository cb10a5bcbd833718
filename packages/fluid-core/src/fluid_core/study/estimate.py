"""What a study will cost on this machine: a few steps of every variant and size, timed."""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs
from rich.console import Console

from fluid_core.assembly import build_dataset
from fluid_core.configuration import TrainingConfig
from fluid_core.data.captioned_images import JudgedPrompts
from fluid_core.exchange import DatasetContext
from fluid_core.pipeline import FluidPipeline
from fluid_core.study.grid import Cell
from fluid_core.study.jobs import sweeps_at
from fluid_core.study.measuring import size_of, takes_steps
from fluid_core.study.settings import StudyEvaluation
from fluid_core.training.sight.metrics import read_metrics
from fluid_core.training.sight.progress import TrainingProgress
from fluid_core.training.trainer import Trainer

_WARM_UP = 3
_PICTURES = 24


@attrs.frozen(kw_only=True)
class CellCost:
    """What one run takes, alone on the machine with the threads of this process."""

    cell: Cell
    parameters: int
    images_per_second: float
    training_hours: float
    measuring_hours: float

    @property
    def hours(self) -> float:
        """Both together."""
        return self.training_hours + self.measuring_hours


def estimate(
    cells: Sequence[Cell], evaluation: StudyEvaluation, *, num_steps: int = 12, note: Callable[[CellCost], None]
) -> list[CellCost]:
    """The cost of every run. Each variant and size is timed once, over `num_steps` steps, and counts for all its seeds;
    `note` is told each as it is known. Raises what training raises.
    """
    known: dict[tuple[str, str], CellCost] = {}
    costs = []
    for cell in cells:
        key = (cell.variant, cell.size)
        if key not in known:
            known[key] = _timed(cell, evaluation, num_steps)
            note(known[key])
        costs.append(attrs.evolve(known[key], cell=cell))
    return costs


def _timed(cell: Cell, evaluation: StudyEvaluation, num_steps: int) -> CellCost:
    training = cell.config.training
    assert isinstance(training, TrainingConfig)
    total = _WARM_UP + num_steps
    short = attrs.evolve(
        training, num_steps=total, log_every=1, checkpoint_every=10 * total, num_validation_images=0, sample_every=0
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "run"
        progress = TrainingProgress(Console(quiet=True), silent=True)
        trainer = Trainer(attrs.evolve(cell.config, training=short), folder, progress=progress)
        trainer.train()
        seconds = [row["seconds"] for row in read_metrics(folder / "metrics.jsonl") if "seconds" in row]
        per_step = (seconds[-1] - seconds[_WARM_UP - 1]) / (len(seconds) - _WARM_UP)
        pipeline = FluidPipeline.from_pretrained(folder / "model")
    return CellCost(
        cell=cell,
        parameters=size_of(pipeline.model),
        images_per_second=training.batch_size / per_step,
        training_hours=cell.num_steps * per_step / 3600,
        measuring_hours=_measuring_seconds(pipeline, cell, evaluation) / 3600,
    )


def _measuring_seconds(pipeline: FluidPipeline, cell: Cell, evaluation: StudyEvaluation) -> float:
    """Drawing is most of it; the time of a picture is taken to be that of the order's and head's own steps."""
    data = cell.config.data
    assert data is not None
    context = DatasetContext(image_size=pipeline.model.tokenizer.image_size, split="validation")
    judge = build_dataset(data, context)
    if not isinstance(judge, JudgedPrompts):
        return 0.0
    prompts = [prompt.text for prompt in judge.evaluation_prompts(num_per_task=_PICTURES, seed=0)][:_PICTURES]
    scales = evaluation.guidance_scales
    started = time.perf_counter()
    pipeline(prompts, seed=0, output_type="tokens", guidance_scale=max(scales))
    per_picture = (time.perf_counter() - started) / len(prompts)
    num_draws = 1
    if sweeps_at(evaluation, cell):
        grid = pipeline.model.tokenizer.token_space.grid
        num_draws += sum(takes_steps(pipeline.model.order, grid, steps) for steps in evaluation.order_steps)
        num_draws += len(evaluation.head_steps)
    for_guidance = len(scales) * evaluation.prompts_per_task_for_guidance if len(scales) > 1 else 0
    return per_picture * len(judge.tasks) * (evaluation.prompts_per_task * num_draws + for_guidance)
