"""Losses and gradients that are not finite: which they are, where they come from, and the batch they came with."""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fluid_core.atomic_files import write_json
from fluid_core.errors import OutputError
from fluid_core.model import BatchLoss, FluidModel, TrainingBatch

FOLDER = "non_finite"
"""Below the folder of a run."""


def non_finite_loss(model: FluidModel, loss: BatchLoss) -> str | None:
    """Which part of a loss is not finite, in words; None if all of it is."""
    value = float(loss.mean.detach())
    if math.isfinite(value):
        return None
    parts = [name for name, part in loss.parts.items() if not bool(part.isfinite())]
    where = f"part {', '.join(parts)} of the loss of {type(model.head).__name__}" if parts else "the loss"
    return f"{where} is {value}, expected a finite number"


def first_non_finite_output(model: FluidModel, batch: TrainingBatch) -> str | None:
    """The module whose output is the first to hold NaN or infinity, in words; None if no module's does.

    Runs the model once more, without gradients.
    """
    found: list[str] = []

    def watch(name: str) -> Any:
        def look(_: nn.Module, __: Any, output: Any) -> None:
            if not found and isinstance(output, Tensor) and not bool(output.isfinite().all()):
                found.append(f"the output of {name}")

        return look

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad(), torch.compiler.set_stance("force_eager"):
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def non_finite_gradient(module: nn.Module) -> str:
    """Which gradients of a module are not finite, in words: a sentence without its end."""
    names = [n for n, p in module.named_parameters() if p.grad is not None and not bool(p.grad.isfinite().all())]
    others = f" and of {len(names) - 1} more parameters" if len(names) > 1 else ""
    where = f"the gradient of {names[0]}{others}" if names else "the norm of all gradients together"
    return f"{where} is not finite"


def non_finite_cause(module: nn.Module) -> str:
    """A sentence on whether the weights of a module are still finite."""
    weights = [name for name, p in module.named_parameters() if not bool(p.isfinite().all())]
    return f"The weights {weights[0]} are already not finite" if weights else "All weights are finite"


def batch_file(folder: Path, step: int) -> Path:
    """Where the batch of `step` (from 1) is described."""
    return folder / FOLDER / f"step-{step:08d}.json"


def keep_batch(folder: Path, *, step: int, problem: str, captions: list[str], items: list[int] | None) -> str:
    """Write down the batch of `step` (from 1), and say where: the end of a sentence.

    `items` are its places in the data set, None for a stream. A disk that is full is no reason to lose the message.
    """
    path = batch_file(folder, step)
    try:
        write_json(path, {"step": step, "problem": problem, "items": items, "captions": captions})
    except OutputError as error:
        return f"its batch could not be written down ({error})"
    return f"its batch is in {path}"


def num_left_out(folder: Path, *, until: int) -> int:
    """How many steps up to `until` were left out by the run in `folder`, this process or those before."""
    names = [path.stem for path in (folder / FOLDER).glob("step-*.json")]
    return sum(int(name.removeprefix("step-")) <= until for name in names)
