"""Checkpoints of a training run: everything needed to continue as if nothing had happened.

`checkpoints/step-00000500/` holds the raw weights, their moving average and the optimizer's state as safetensors, and
`state.json`. Randomness and the position in the data follow from the step alone, so the step is all that is kept of
them.
"""

import re
import shutil
from pathlib import Path

import torch
from torch import Tensor

from fluid_core.atomic_files import (
    check_state,
    load_state,
    new_folder,
    read_json,
    read_safetensors,
    write_json,
    write_safetensors,
)
from fluid_core.errors import CheckpointError, CheckpointMismatchError
from fluid_core.model import FluidModel
from fluid_core.training.moving_average import MovingAverage

_NAME = re.compile(r"step-(\d{8})")


def save_checkpoint(
    folder: Path,
    *,
    step: int,
    model: FluidModel,
    average: MovingAverage,
    optimizer: torch.optim.Optimizer,
    keep: int,
) -> Path:
    """Write the state after `step` steps below `folder` and delete all but the newest `keep` checkpoints."""
    path = folder / f"step-{step:08d}"
    with new_folder(path) as new:
        write_safetensors(new / "model.safetensors", model.saved_state())
        write_safetensors(new / "ema.safetensors", average.weights)
        write_safetensors(new / "optimizer.safetensors", _optimizer_state(model, optimizer))
        write_json(new / "state.json", {"format_version": 1, "step": step})
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first. Unfinished ones have other names and are not among them."""
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def load_checkpoint(path: Path, *, model: FluidModel, average: MovingAverage, optimizer: torch.optim.Optimizer) -> int:
    """Restore all of a checkpoint and return its step.

    Everything is read and checked before anything changes: raises `CheckpointError` for a missing or damaged file and
    `CheckpointMismatchError` for another model's.
    """
    state = read_json(path / "state.json")
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise CheckpointError(f"{path / 'state.json'} is damaged: expected the number of steps taken.")
    weights = read_safetensors(path / "model.safetensors")
    averages = read_safetensors(path / "ema.safetensors")
    moments = read_safetensors(path / "optimizer.safetensors")
    check_state(averages, average.weights, source=str(path / "ema.safetensors"))
    _check_optimizer_state(model, moments, source=str(path / "optimizer.safetensors"))
    load_state(model, weights, source=str(path / "model.safetensors"), expected=model.saved_state())
    average.load(averages)
    _load_optimizer_state(model, optimizer, moments)
    return int(state["step"])


def _optimizer_state(model: FluidModel, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}|{key}"] = value
    return tensors


def _check_optimizer_state(model: FluidModel, tensors: dict[str, Tensor], *, source: str) -> None:
    """Every tensor must belong to a parameter and have its shape, or be a number such as the count of steps."""
    parameters = dict(model.named_parameters())
    for full_name, value in tensors.items():
        name = full_name.rpartition("|")[0]
        if name not in parameters or (value.ndim and value.shape != parameters[name].shape):
            raise CheckpointMismatchError(
                f"{source} does not fit the model it is loaded into; nothing was changed: {full_name} of shape "
                f"{tuple(value.shape)} belongs to no parameter. Resume with the configuration the run was started with."
            )


def _load_optimizer_state(model: FluidModel, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for full_name, value in tensors.items():
        name, key = full_name.rsplit("|", 1)
        parameter = parameters[name]
        optimizer.state[parameter][key] = value.to(parameter.device)
