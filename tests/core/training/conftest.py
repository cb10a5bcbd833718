"""Short training runs of a tiny model."""

import io
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from fluid_core import FluidConfig, Trainer
from fluid_core.configuration import ComponentChoice, TokenizerRunConfig, TrainingConfig, config_to_json
from fluid_core.training.sight.progress import TrainingProgress

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


@pytest.fixture(scope="session")
def quiet_progress() -> type[QuietProgress]:
    """The class of such a progress, for trainers of other things."""
    return QuietProgress


TRAIN = """
import sys
from pathlib import Path
from fluid_core import Trainer
from fluid_core.configuration import config_from_json, tokenizer_run_from_json
from fluid_core.training.tokenizers.trainer import TokenizerTrainer

config, folder, kind, resume = sys.argv[1:]
read, trainer = {
    "FluidConfig": (config_from_json, Trainer),
    "TokenizerRunConfig": (tokenizer_run_from_json, TokenizerTrainer),
}[kind]
trainer(read(Path(config).read_text(), source="test"), folder, resume=resume == "resume").train()
"""


@pytest.fixture(scope="session")
def train_in_processes(run_in_processes) -> Callable[..., str]:
    """A function that trains a model or a tokenizer through `torchrun` and returns what was printed."""

    def train(config: FluidConfig | TokenizerRunConfig, folder: Any, *, resume: bool = False, **how: Any) -> str:
        arguments = (type(config).__name__, "resume" if resume else "new")
        run = run_in_processes(TRAIN, config, folder, *arguments, **how)
        assert run.returncode == 0, run.stderr[-3000:]
        return run.stderr

    return train


@pytest.fixture(scope="session")
def run_in_processes(torchrun) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """A function that runs a program, given the file of a configuration and a folder, through `torchrun`."""

    def run(
        program: str,
        config: FluidConfig | TokenizerRunConfig,
        folder: Any,
        *arguments: str,
        num_processes: int,
        cold: bool = False,
    ) -> "subprocess.CompletedProcess[str]":
        folder.parent.mkdir(exist_ok=True)
        script, saved = folder.parent / f"{folder.name}.py", folder.parent / f"{folder.name}.json"
        script.write_text(program)
        saved.write_text(config_to_json(config))
        return torchrun(num_processes, script, saved, folder, *arguments, cold=cold)

    return run
