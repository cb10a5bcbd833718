"""What the trainer costs beside a plain PyTorch loop over the same model, batches and optimizer.

Command:   OMP_NUM_THREADS=1 python examples/benchmarks/training.py [--json FILE] [--size tiny] [--pairs 100]
Shows:     for the four models of the paper the time of the trainer over that of the plain loop, with its 95% interval
Runtime:   three minutes for tiny and two for `--size wide --pairs 12 --batch-size 2`, on one core
Expected:  no more than 3%. Seen at tiny: between -1% and +1%, with intervals of about 2% to either side

The plain loop is `plain_loop` below, thirty lines: read a batch, forward, backward, clip, fused AdamW, moving average,
and the loss to a file every ten steps. The trainer is `Trainer.train`, with all that it does in those steps. Both read
pictures from a loader of their own that reads one batch ahead. Neither saves, samples or validates.

They take turns of some steps in one process: trainer, plain, plain, trainer, and so on. A pair is two neighbouring
turns; the interval is Student's over the logarithms of the pairs' ratios. At the end both have taken the same steps,
and the script fails unless weights and averages are the same to the bit: both did the same work.
"""

import argparse
import copy
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from machine_limits import measure_limits
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student
from training_models import MODELS, SIZES, configuration

from fluid_core.configuration import TrainingConfig
from fluid_core.data.batches import ImageBatch
from fluid_core.data.open_batches import Batches, open_batches
from fluid_core.model import BatchLoss, FluidModel
from fluid_core.training.sight.progress import TrainingProgress
from fluid_core.training.step.gradient_step import step_seed
from fluid_core.training.step.learning_rate import learning_rate_factor
from fluid_core.training.step.optimizer import decayed_parameters
from fluid_core.training.trainer import Trainer

console = Console()


def plain_loop(
    model: FluidModel, loader: Batches, settings: TrainingConfig, average: list[torch.Tensor], log: Path
) -> Iterator[None]:
    """What one would write by hand for this model, a step for each item asked for; `average` is changed in place."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    weights = [parameter.detach() for _, parameter in named]
    decayed = decayed_parameters(model)
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in named if name in decayed], "weight_decay": settings.weight_decay},
        {"params": [p for name, p in named if name not in decayed], "weight_decay": 0.0},
    ]
    betas = (settings.beta1, settings.beta2)
    optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, betas=betas, fused=True)
    # In the order of the trainer: sums in another order would differ in their last bits.
    clipped = [parameter for group in groups for parameter in group["params"]]
    clip_norm = settings.gradient_clip_norm or math.inf
    for step in range(settings.num_steps):
        batch = loader.batch(step)
        assert isinstance(batch, ImageBatch)
        # The trainer's numbers, so that the weights can be compared; one generator for all steps would cost the same.
        generator = torch.Generator().manual_seed(step_seed(settings.seed, step))
        loss: BatchLoss = model.loss(
            batch.images, batch.captions, generator=generator, text_drop_probability=settings.text_drop_probability
        )
        optimizer.zero_grad(set_to_none=True)
        loss.mean.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(clipped, clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * learning_rate_factor(
                step, num_steps=settings.num_steps, warmup_steps=settings.warmup_steps, schedule=settings.schedule
            )
        optimizer.step()
        with torch.no_grad():
            decay = min(settings.ema_decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(average, weights, 1.0 - decay)
        if (step + 1) % settings.log_every == 0:
            with log.open("a") as file:
                file.write(json.dumps({"step": step + 1, "loss": loss.mean.item(), "norm": norm.item()}) + "\n")
        yield


class Turn(NamedTuple):
    """How long some steps took: by the clock, and of processors, without what other users take."""

    seconds: float
    processor_seconds: float

    @classmethod
    def now(cls) -> "Turn":
        """Both clocks."""
        return cls(time.perf_counter(), time.process_time())

    @classmethod
    def since(cls, before: "Turn") -> "Turn":
        """What passed since `before`."""
        now = cls.now()
        return cls(now.seconds - before.seconds, now.processor_seconds - before.processor_seconds)


class EnoughError(Exception):
    """All turns are over."""


class TakesTurns(TrainingProgress):
    """The trainer's progress, which lets the plain loop run between two steps and keeps the time of both.

    `turns` are the seconds of trainer and plain loop, a pair for each pair of turns; `warm_up` pairs come before them.
    """

    def __init__(self, plain: Iterator[None], *, num_pairs: int, num_steps: int, warm_up: int) -> None:
        super().__init__(Console(quiet=True))
        self.plain = plain
        self.num_pairs, self.num_steps, self.warm_up = num_pairs, num_steps, warm_up
        self.turns: list[tuple[Turn, Turn]] = []
        self._of_trainer: list[Turn] = []
        self._of_plain: list[Turn] = []
        self._num_steps_taken = 0
        self._turn_began = Turn.now()

    def begin(self) -> None:
        """The trainer is about to take its first step."""
        self._turn_began = Turn.now()

    def stepped(self, step: int, loss: float) -> None:
        """What the trainer does at the end of a step; at the end of its turn, the turns of the plain loop."""
        super().stepped(step, loss)
        self._num_steps_taken += 1
        if self._num_steps_taken % self.num_steps:
            return
        self._of_trainer.append(Turn.since(self._turn_began))
        # Trainer, plain, plain, trainer, trainer, ...: every other pair begins with the plain loop.
        for _ in range(2 if len(self._of_trainer) % 2 else 0):
            started = Turn.now()
            for _ in range(self.num_steps):
                next(self.plain)
            self._of_plain.append(Turn.since(started))
        if len(self._of_trainer) % 2 == 0 and len(self._of_trainer) >= self.num_pairs + self.warm_up:
            self.turns = list(zip(self._of_trainer, self._of_plain, strict=True))[self.warm_up :]
            raise EnoughError
        self.begin()


def measure(model: str, size: str, folder: Path, *, batch_size: int, num_pairs: int, num_steps: int) -> dict[str, Any]:
    """Seconds of all turns of one model and what follows from them."""
    config = configuration(model, size, batch_size=batch_size)
    assert config.training is not None
    settings = config.training
    progress = TakesTurns(iter(()), num_pairs=num_pairs, num_steps=num_steps, warm_up=2)
    trainer = Trainer(config, folder / f"{model}-{size}", progress=progress)
    plain_model = copy.deepcopy(trainer.model)
    plain_model.train()
    average = [p.detach().clone() for p in plain_model.parameters() if p.requires_grad]
    loader = open_batches(trainer.train_data, batch_size=settings.batch_size, seed=settings.seed)
    progress.plain = plain_loop(plain_model, loader, settings, average, folder / "plain.jsonl")
    progress.begin()
    try:
        trainer.train()
    except EnoughError:
        loader.close()
    if not same_weights(trainer, plain_model, average):
        raise SystemExit(f"Weights of {model} differ: trainer and plain loop did not do the same work.")
    parameters = sum(p.numel() for p in plain_model.parameters() if p.requires_grad)
    return {
        "model": model,
        "parameters": parameters,
        **summary(progress.turns, num_steps=num_steps),
    }


def summary(turns: list[tuple[Turn, Turn]], *, num_steps: int) -> dict[str, Any]:
    """Medians, and the cost of the trainer by both clocks."""
    return {
        "milliseconds_trainer": 1000 * statistics.median(trainer.seconds for trainer, _ in turns) / num_steps,
        "milliseconds_plain": 1000 * statistics.median(plain.seconds for _, plain in turns) / num_steps,
        "by_clock": cost([(trainer.seconds, plain.seconds) for trainer, plain in turns]),
        "by_processor": cost([(trainer.processor_seconds, plain.processor_seconds) for trainer, plain in turns]),
        "turns": turns,
    }


def cost(pairs: list[tuple[float, float]]) -> dict[str, float]:
    """Geometric mean of the ratios of pairs, less one, with Student's interval at 95%."""
    ratios = [math.log(trainer / plain) for trainer, plain in pairs]
    mean = statistics.fmean(ratios)
    half = float(student.ppf(0.975, len(ratios) - 1)) * statistics.stdev(ratios) / math.sqrt(len(ratios))
    return {"cost": math.exp(mean) - 1, "low": math.exp(mean - half) - 1, "high": math.exp(mean + half) - 1}


def same_weights(trainer: Trainer, model: FluidModel, average: list[torch.Tensor]) -> bool:
    """Whether trainer and plain loop have come to the same weights and the same averages, to the bit."""
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    plain = [p for p in model.parameters() if p.requires_grad]
    ours, theirs = [*trained, *trainer.average.weights.values()], [*plain, *average]
    return all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--pairs", type=int, default=100, help="pairs of turns, an even number")
    parser.add_argument("--steps", type=int, default=1, help="steps in a turn")
    parser.add_argument("--batch-size", type=int, help="images in a step: 32 for tiny, 8 for wide")
    arguments = parser.parse_args()
    batch_size = arguments.batch_size or {"tiny": 32, "wide": 8}[arguments.size]
    limits = measure_limits()
    console.print(str(limits))
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        for model in arguments.models:
            rows.append(
                measure(
                    model,
                    arguments.size,
                    Path(temporary),
                    batch_size=batch_size,
                    num_pairs=arguments.pairs,
                    num_steps=arguments.steps,
                )
            )
            console.print(
                f"{model}: {_interval(rows[-1]['by_clock'])}, processor {_interval(rows[-1]['by_processor'])}"
            )
    columns = ("model", "weights", "ms, plain", "ms, trainer", "cost by the clock", "of processor time")
    table = Table(*columns, title=f"{arguments.size}, batches of {batch_size}, {arguments.pairs} pairs")
    for row in rows:
        table.add_row(
            row["model"],
            f"{row['parameters'] / 1e6:.2f}M",
            f"{row['milliseconds_plain']:.1f}",
            f"{row['milliseconds_trainer']:.1f}",
            _interval(row["by_clock"]),
            _interval(row["by_processor"]),
        )
    console.print(table)
    if arguments.json:
        figures = {"size": arguments.size, "batch_size": batch_size, "steps": arguments.steps, "limits": str(limits)}
        arguments.json.write_text(json.dumps({**figures, "models": rows}, indent=2) + "\n")


def _interval(found: dict[str, float]) -> str:
    return f"{100 * found['cost']:+.1f}% ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"


if __name__ == "__main__":
    main()
