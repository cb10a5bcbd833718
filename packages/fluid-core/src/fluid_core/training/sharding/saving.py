"""The finished model as one plain safetensors file, gathered one tensor at a time: no process holds all of it."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fluid_core.atomic_files import can_not_write
from fluid_core.model import FluidModel
from fluid_core.saved_model import save_model
from fluid_core.training.processes import Processes
from fluid_core.training.sharding.divided_tensors import whole

_TYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def save_sharded_model(
    model: FluidModel,
    folder: Path,
    *,
    weights: str,
    processes: Processes,
    averages: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the folder of a model whose weights are divided; all processes must call this, the first one writes.

    `averages` replace the weights of the same names. Raises as `save_model` does.
    """
    state = {**model.saved_state(), **(averages or {})}
    # Larger types first, so that every tensor starts at a multiple of its type's size.
    names = sorted(state, key=lambda name: (-state[name].element_size(), name))
    ordered = {name: state[name] for name in names}
    if processes.is_first:
        save_model(
            model,
            folder,
            weights=weights,
            write_weights=lambda path: write_tensor_by_tensor(path, ordered, (whole(one) for one in ordered.values())),
        )
    else:
        for one in ordered.values():
            whole(one)
    processes.wait()


def write_tensor_by_tensor(path: Path, layout: Mapping[str, Tensor], tensors: Iterable[Tensor]) -> None:
    """Write a safetensors file of what comes one after the other; `layout` says names, shapes and types before.

    Raises `OutputError` if that is impossible.
    """
    header: dict[str, object] = {}
    end = 0
    for name, tensor in layout.items():
        first, end = end, end + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": _TYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [first, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    try:
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for content in _bytes(tensors):
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise can_not_write(path, error) from error


def _bytes(tensors: Iterable[Tensor]) -> Iterator[Any]:
    """What each tensor holds, without a copy on the way to the file."""
    for tensor in tensors:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy()
