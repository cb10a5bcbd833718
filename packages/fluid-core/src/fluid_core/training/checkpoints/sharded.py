"""Checkpoints of weights that are divided among processes: every process writes its part, while training goes on.

`checkpoints/step-00000500/` holds for each process `shard-00001-model-0000K-of-00003.safetensors`, K being 1 for raw
weights, 2 for their moving average and 3 for the optimizer's moments. A tensor goes by its name with `model.`, `ema.`
or `optimizer.` before it and `|exp_avg` behind it; where in the whole tensor a part belongs is in the file's metadata
(`DCP_SHARDING_INFO`), as PyTorch's distributed checkpoints write it (`HuggingFaceStorageWriter`). `state.json` comes
last, with a record of every file and the numbers that are no tensors; then the folder is renamed. No pickle is written.

What is read need not be divided as it was written: among any number of processes, or not at all; and the layout of
`whole` is read as well.
"""

import shutil
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

import safetensors
import torch
import torch.distributed as distributed
from torch import Tensor
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from fluid_core.atomic_files import read_json, write_json
from fluid_core.errors import CheckpointError, CheckpointMismatchError, OutputError
from fluid_core.training.checkpoints.file_records import file_records
from fluid_core.training.checkpoints.parts_elsewhere import check_identities
from fluid_core.training.checkpoints.whole import (
    Progress,
    Trained,
    progress_of,
    read_state,
    remove_old,
    trained_parameters,
    write_state,
)
from fluid_core.training.processes import Processes
from fluid_core.training.sharding.divided_tensors import is_divided, local, share_of
from fluid_core.training.step.moving_average import MovingAverage

SHARDED = "sharded"
"""The `layout` in `state.json`; one without is that of `whole`."""

_MODEL, _AVERAGE, _OPTIMIZER = "model.", "ema.", "optimizer."
_FILES = {_MODEL: 1, _AVERAGE: 2, _OPTIMIZER: 3}
_MOMENTS = ("exp_avg", "exp_avg_sq")


def start_saving(
    folder: Path,
    *,
    progress: Progress,
    model: Trained,
    average: MovingAverage,
    optimizer: torch.optim.Optimizer,
    keep: int,
    processes: Processes,
    background: distributed.ProcessGroup | None,
    identities: Mapping[str, str] | None = None,
) -> "Future[Any]":
    """Copy the state of a run and write it in the background; all processes must call this.

    The checkpoint is there when the result is. All but the newest `keep` are deleted then. `background` is a group of
    processes for this alone.
    """
    path = folder / f"step-{progress.step:08d}"
    unfinished = folder / f".{path.name}.unfinished"
    if processes.is_first:
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            unfinished.mkdir(parents=True)
        except OSError as error:
            raise OutputError(f"{unfinished} can not be made: {error.strerror or error}. Make room there.") from error
    processes.wait()
    tensors, numbers = state_to_save(model, average, optimizer)
    untouched = [name for name, p in trained_parameters(model, optimizer).items() if not optimizer.state.get(p)]

    def finish(files: dict[str, Any]) -> None:
        others = {"layout": SHARDED, "num_processes": processes.count, "numbers": numbers}
        write_state(unfinished, progress, untouched=untouched, files=files, identities=identities, **others)
        if path.exists():
            shutil.rmtree(path)
        unfinished.rename(path)
        remove_old(folder, keep=keep)

    writer = _RecordingWriter(unfinished, tensors, finish)
    future = async_save(tensors, storage_writer=writer, process_group=background)
    assert isinstance(future, Future)
    return future


def state_to_save(
    model: Trained, average: MovingAverage, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Every tensor of a run by the name it has in a checkpoint, divided or whole, and numbers that are no such."""
    tensors = {f"{_MODEL}{name}": tensor.detach() for name, tensor in model.saved_state().items()}
    tensors |= {f"{_AVERAGE}{name}": tensor.detach() for name, tensor in average.weights.items()}
    numbers = {}
    for name, parameter in model.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if value.ndim == 0 and key not in _MOMENTS:
                numbers[f"{name}|{key}"] = float(local(value))
            else:
                tensors[f"{_OPTIMIZER}{name}|{key}"] = value
    return tensors, numbers


class _RecordingWriter(HuggingFaceStorageWriter):
    """Also records length and checksum of what each process wrote, and calls `finish` with all records in the first."""

    def __init__(self, folder: Path, names: Mapping[str, Any], finish: Callable[[dict[str, Any]], None]) -> None:
        files = {name: _FILES[name[: name.index(".") + 1]] for name in names}
        super().__init__(path=str(folder), fqn_to_index_mapping=files, save_distributed=True)
        self._folder, self._finish = folder, finish

    def write_data(self, plan: Any, planner: Any) -> Any:
        written = super().write_data(plan, planner)
        written.wait()
        shard = plan.storage_data["shard_index"]
        write_json(
            self._folder / f"records-{shard:05d}.json",
            file_records(sorted(self._folder.glob(f"shard-{shard:05d}-*.safetensors"))),
        )
        return written

    def finish(self, metadata: Any, results: Any) -> None:
        # By now every process has written all it has.
        del metadata, results
        records: dict[str, Any] = {}
        for path in sorted(self._folder.glob("records-*.json")):
            records |= read_json(path)
            path.unlink()
        self._finish(records)


class _Content(Protocol):
    """The tensors of a checkpoint, in whichever layout."""

    shapes: dict[str, tuple[int, ...]]
    """Of whole tensors, by the name they have in divided checkpoints."""

    def numbers(self) -> dict[str, float]: ...

    def read(self, targets: dict[str, Tensor]) -> None: ...


class _Divided:
    """Written by `start_saving`."""

    def __init__(self, path: Path, state: Mapping[str, Any]) -> None:
        self._reader = HuggingFaceStorageReader(str(path))
        metadata: Metadata = self._reader.read_metadata()
        self.shapes = {
            name: tuple(one.size)
            for name, one in metadata.state_dict_metadata.items()
            if isinstance(one, TensorStorageMetadata)
        }
        self._numbers: dict[str, float] = state["numbers"]

    def numbers(self) -> dict[str, float]:
        return self._numbers

    def read(self, targets: dict[str, Tensor]) -> None:
        together = any(is_divided(one) for one in targets.values())
        with warnings.catch_warnings():
            # That each process reads by itself is meant.
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load(targets, storage_reader=self._reader, no_dist=not together)


class _Whole:
    """Written by `checkpoint.save_checkpoint`: of a divided tensor only this process's part is read."""

    def __init__(self, path: Path) -> None:
        self._files = {
            _MODEL: path / "model.safetensors",
            _AVERAGE: path / "ema.safetensors",
            _OPTIMIZER: path / "optimizer.safetensors",
        }
        self.shapes: dict[str, tuple[int, ...]] = {}
        for prefix, file_path in self._files.items():
            with safetensors.safe_open(file_path, framework="pt") as file:
                names = file.keys()
                self.shapes |= {prefix + name: tuple(file.get_slice(name).get_shape()) for name in names}

    def numbers(self) -> dict[str, float]:
        found = {
            name: torch.zeros(()) for name, shape in self.shapes.items() if name.startswith(_OPTIMIZER) and not shape
        }
        self.read(found)
        return {name.removeprefix(_OPTIMIZER): float(value) for name, value in found.items()}

    @torch.no_grad()
    def read(self, targets: dict[str, Tensor]) -> None:
        for prefix, path in self._files.items():
            with safetensors.safe_open(path, framework="pt") as file:
                for name, target in targets.items():
                    if not name.startswith(prefix):
                        continue
                    stored = name.removeprefix(prefix)
                    part = file.get_slice(stored)[share_of(target)] if is_divided(target) else file.get_tensor(stored)
                    local(target).copy_(part)


def load_any_checkpoint(
    path: Path,
    *,
    model: Trained,
    average: MovingAverage,
    optimizer: torch.optim.Optimizer,
    identities: Mapping[str, str] | None = None,
) -> Progress:
    """Restore a checkpoint of either layout, divided as the model is now, and say how far the run had come.

    All processes must call this; that the files are what was written is for the caller to check. Raises
    `CheckpointMismatchError`, before anything changes, for a checkpoint of another model.
    """
    state = read_state(path)
    check_identities(state.get("identities", {}), identities or {}, source=str(path))
    try:
        content: _Content = _Divided(path, state) if state.get("layout") == SHARDED else _Whole(path)
        numbers = content.numbers()
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(f"A file in {path} is truncated or damaged ({error}).") from error
    trained = trained_parameters(model, optimizer)
    touched = {name: p for name, p in trained.items() if name not in state["untouched"]}
    targets = {f"{_MODEL}{name}": tensor.detach() for name, tensor in model.saved_state().items()}
    targets |= {f"{_AVERAGE}{name}": tensor for name, tensor in average.weights.items()}
    moments = {name: {key: torch.empty_like(p.detach()) for key in _MOMENTS} for name, p in touched.items()}
    targets |= {f"{_OPTIMIZER}{name}|{key}": one for name, kept in moments.items() for key, one in kept.items()}
    _check_shapes(targets, content.shapes, source=path)
    if missing := [name for name in touched if f"{name}|step" not in numbers]:
        raise CheckpointMismatchError(
            f"{path} does not fit the model it is loaded into; nothing was changed: the number of steps of "
            f"{missing[0]} is missing, and {len(missing) - 1} more."
        )
    content.read(targets)
    optimizer.state.clear()
    for name, parameter in touched.items():
        steps = torch.tensor(numbers[f"{name}|step"], dtype=torch.float32, device=local(parameter).device)
        optimizer.state[parameter] = {"step": steps, **moments[name]}
    return progress_of(state)


def _check_shapes(targets: Mapping[str, Tensor], found: Mapping[str, tuple[int, ...]], *, source: Path) -> None:
    problems = [f"{name}: missing" for name in targets if name not in found]
    tensors = {name for name, shape in found.items() if shape or not name.startswith(_OPTIMIZER)}
    problems += [f"{name}: not part of this model" for name in sorted(tensors) if name not in targets]
    problems += [
        f"{name}: shape {found[name]}, expected {tuple(target.shape)}"
        for name, target in targets.items()
        if name in found and found[name] != tuple(target.shape)
    ]
    if problems:
        shown = "\n  ".join(problems[:8]) + (f"\n  and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise CheckpointMismatchError(
            f"{source} does not fit the model it is loaded into; nothing was changed:\n  {shown}\n"
            "Resume with the configuration the run was started with."
        )
