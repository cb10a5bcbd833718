"""Checkpoints of a training run: everything needed to continue as if nothing had happened.

`checkpoints/step-00000500/` holds the raw weights, their moving average and the optimizer's state as safetensors, and
`state.json`, which is written last, with length and checksum of each of them. This is the layout of weights that every
process holds whole; those that are divided among processes are in `sharded`, and `run_checkpoints` knows
both. Randomness follows from the step alone, and so does the position in data with random access. Of a stream
`state.json` keeps which shards every process has not yet delivered whole. Weights that the configuration only names,
such as those of a pretrained text encoder, are not held: `state.json` keeps their identities.
"""

import json
import re
import shutil
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import attrs
import torch
from torch import Tensor, nn

from fluid_core.atomic_files import (
    check_state,
    new_folder,
    read_json,
    read_safetensors,
    write_json,
    write_safetensors,
)
from fluid_core.errors import CheckpointError, CheckpointMismatchError
from fluid_core.training.checkpoints.file_records import check_files, file_records
from fluid_core.training.checkpoints.parts_elsewhere import check_identities
from fluid_core.training.step.moving_average import MovingAverage

_ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")
"""What Adam keeps of a parameter from its first gradient on."""

STATE_FILE = "state.json"

_NAME = re.compile(r"step-(\d{8})")


@runtime_checkable
class Trained(Protocol):
    """What is trained, as far as a checkpoint is concerned: a `FluidModel`, or a tokenizer in training."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Every parameter by name."""
        ...

    def saved_state(self) -> dict[str, Tensor]:
        """Every tensor to keep, by name."""
        ...

    def load_saved_state(self, state: Mapping[str, Tensor], *, source: str) -> None:
        """Take over such a state, or raise `CheckpointMismatchError` before anything changes."""
        ...


@attrs.frozen(kw_only=True)
class Progress:
    """How far a run has come: steps taken, and seconds of training they took over all of its processes."""

    step: int
    seconds: float
    data: tuple[Any, ...] = ()
    """Where every process stands in the data, in the order of the processes; empty where the step says it."""


def save_checkpoint(
    folder: Path,
    *,
    progress: "Progress",
    model: Trained,
    average: MovingAverage,
    optimizer: torch.optim.Optimizer,
    keep: int,
    identities: Mapping[str, str] | None = None,
) -> Path:
    """Write the state of a run below `folder` and delete all but the newest `keep` checkpoints.

    `identities` are those of the parts whose weights are elsewhere, by name (`identities_elsewhere`).
    """
    path = folder / f"step-{progress.step:08d}"
    with new_folder(path) as new:
        write_safetensors(new / "model.safetensors", model.saved_state())
        write_safetensors(new / "ema.safetensors", average.weights)
        write_safetensors(new / "optimizer.safetensors", _optimizer_state(model, optimizer))
        untouched = [name for name, p in trained_parameters(model, optimizer).items() if not optimizer.state.get(p)]
        files = file_records(sorted(new.glob("*.safetensors")))
        write_state(new, progress, untouched=untouched, identities=identities, files=files)
    remove_old(folder, keep=keep)
    return path


def write_state(
    folder: Path,
    progress: "Progress",
    *,
    untouched: list[str],
    files: Mapping[str, Any],
    identities: Mapping[str, str] | None = None,
    **others: Any,
) -> None:
    """Write `state.json`, the last file of a checkpoint: what is no tensor, and what its files are."""
    state = {"format_version": 1, "step": progress.step, "seconds": progress.seconds, "untouched": untouched, **others}
    if progress.data:
        state["data"] = list(progress.data)
    if identities:
        state["identities"] = dict(identities)
    state["files"] = dict(files)
    write_json(folder / STATE_FILE, {**state, "checksum": _checksum(state)})


def _checksum(state: Mapping[str, Any]) -> str:
    return f"{zlib.crc32(json.dumps(state, sort_keys=True).encode()):08x}"


def remove_old(folder: Path, *, keep: int) -> None:
    """Delete all but the newest `keep` checkpoints."""
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)


def checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first. Unfinished ones have other names and are not among them."""
    return sorted(path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))


def load_checkpoint(
    path: Path,
    *,
    model: Trained,
    average: MovingAverage,
    optimizer: torch.optim.Optimizer,
    identities: Mapping[str, str] | None = None,
) -> "Progress":
    """Restore all of a checkpoint and say how far the run had come.

    Everything is read and checked before anything changes: raises `CheckpointError` for a missing or damaged file and
    `CheckpointMismatchError` for another model's, or if the weights of a part that are elsewhere have changed:
    `identities` are what they are now.
    """
    state = read_state(path)
    check_files(path, state.get("files", {}))
    weights = read_safetensors(path / "model.safetensors")
    averages = read_safetensors(path / "ema.safetensors")
    moments = read_safetensors(path / "optimizer.safetensors")
    check_identities(state.get("identities", {}), identities or {}, source=str(path))
    check_state(averages, average.weights, source=str(path / "ema.safetensors"))
    _check_optimizer_state(
        model, optimizer, moments, untouched=state["untouched"], source=str(path / "optimizer.safetensors")
    )
    model.load_saved_state(weights, source=str(path / "model.safetensors"))
    average.load(averages)
    _load_optimizer_state(model, optimizer, moments)
    return progress_of(state)


def progress_of(state: Mapping[str, Any]) -> "Progress":
    """How far the run of a `read_state` had come."""
    return Progress(step=state["step"], seconds=float(state["seconds"]), data=tuple(state.get("data", ())))


def read_state(folder: Path) -> dict[str, Any]:
    """What `write_state` wrote. Raises `CheckpointError` if it is damaged or incomplete."""
    path = folder / STATE_FILE
    state = read_json(path)
    if isinstance(state, dict) and state.pop("checksum", None) not in (None, _checksum(state)):
        raise CheckpointError(f"{path} is damaged: its checksum is another than that of what it says.")
    if not isinstance(state, dict) or not isinstance(state.get("step"), int):
        raise CheckpointError(f"{path} is damaged: expected the number of steps taken.")
    if not isinstance(state.get("seconds"), int | float):
        raise CheckpointError(f"{path} is damaged: expected the seconds trained.")
    if not isinstance(state.get("untouched"), list):
        raise CheckpointError(f"{path} is damaged: expected the list of parameters that had no gradient yet.")
    if not isinstance(state.get("data", []), list):
        raise CheckpointError(f"{path} is damaged: expected a list of positions in the data.")
    if not isinstance(state.get("files", {}), dict):
        raise CheckpointError(f"{path} is damaged: expected a record of each file.")
    identities = state.get("identities", {})
    if not isinstance(identities, dict) or not all(isinstance(one, str) for one in identities.values()):
        raise CheckpointError(f"{path} is damaged: expected an identity for each part whose weights are elsewhere.")
    return state


def _optimizer_state(model: Trained, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    tensors = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            tensors[f"{name}|{key}"] = value
    return tensors


def trained_parameters(model: Trained, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The parameters that the optimizer moves, by name."""
    moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in moved}


def _check_optimizer_state(
    model: Trained,
    optimizer: torch.optim.Optimizer,
    tensors: dict[str, Tensor],
    *,
    untouched: list[str],
    source: str,
) -> None:
    """Every tensor must belong to a parameter and have its shape, or be a number such as the count of steps; and every
    parameter that had a gradient, which are all but the `untouched`, must have its moments.
    """
    parameters = dict(model.named_parameters())
    for full_name, value in tensors.items():
        name = full_name.rpartition("|")[0]
        if name not in parameters or (value.ndim and value.shape != parameters[name].shape):
            raise CheckpointMismatchError(
                f"{source} does not fit the model it is loaded into; nothing was changed: {full_name} of shape "
                f"{tuple(value.shape)} belongs to no parameter. Resume with the configuration the run was started with."
            )
    needed = [
        f"{name}|{key}" for name in trained_parameters(model, optimizer) if name not in untouched for key in _ADAM_STATE
    ]
    missing = [name for name in needed if name not in tensors]
    if missing:
        raise CheckpointMismatchError(
            f"{source} does not fit the model it is loaded into; nothing was changed: {missing[0]} is missing, and "
            f"{len(missing) - 1} more. Delete the checkpoint's folder and resume from the one before it."
        )


def _load_optimizer_state(model: Trained, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    optimizer.state.clear()
    for full_name, value in tensors.items():
        name, key = full_name.rsplit("|", 1)
        parameter = parameters[name]
        optimizer.state[parameter][key] = value.to(parameter.device)
