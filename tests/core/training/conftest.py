"""Short training runs of a tiny model."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from fluid_core import FluidConfig, Trainer
from fluid_core.configuration import ComponentChoice, TrainingConfig
from fluid_core.training.progress import TrainingProgress

SHAPES = ComponentChoice(name="shapes", options={"num_examples": 30, "num_validation_examples": 10})


@pytest.fixture(scope="session")
def run_config(small_config) -> Callable[..., FluidConfig]:
    """A function that makes the configuration of a short run on shapes; keywords are fields of `TrainingConfig`."""

    def make(tokens: str = "continuous", order: str = "random", parts: dict[str, Any] | None = None, **training: Any):
        settings = {
            "num_steps": 4,
            "batch_size": 4,
            "warmup_steps": 2,
            "learning_rate": 1e-2,
            "log_every": 1,
            "checkpoint_every": 4,
            "sample_every": 0,
            "num_validation_images": 0,
            "num_fit_images": 12,
            "device": "cpu",
            **training,
        }
        return small_config(tokens, order, **{"data": SHAPES, "training": TrainingConfig(**settings), **(parts or {})})

    return make


class QuietProgress(TrainingProgress):
    """Keeps what it is told; raises KeyboardInterrupt after step `stop_after`, as Ctrl-C would."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.output = io.StringIO()
        self.stop_after = stop_after
        super().__init__(Console(file=self.output, width=200))

    def stepped(self, step: int, loss: float) -> None:
        """Stop if it is time."""
        super().stepped(step, loss)
        if step == self.stop_after:
            raise KeyboardInterrupt


@pytest.fixture(scope="session")
def make_trainer() -> Callable[..., Trainer]:
    """A function that makes a trainer whose progress goes to `trainer.progress.output`."""

    def make(config: FluidConfig, folder: Any, *, stop_after: int | None = None, **others: Any) -> Trainer:
        return Trainer(config, folder, progress=QuietProgress(stop_after), **others)

    return make
