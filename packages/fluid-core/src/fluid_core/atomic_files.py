"""Reading and writing whole files: JSON and safetensors, never pickle, never half a file.

A file is written under a temporary name in its own folder, flushed to disk and renamed; a folder is filled under a
temporary name and renamed. Whoever looks sees the old content or the new, nothing between; only where a folder replaces
another is there a moment with neither.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fluid_core.errors import CheckpointError, CheckpointMismatchError, OutputError


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all, and make its folder if needed. Raises `OutputError` if that is impossible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".unfinished")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise can_not_write(path, error) from error


def check_writable(folder: Path) -> None:
    """Make `folder` if needed. Raises `OutputError` unless files can be written there: to ask before a long work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".writable."):
            pass
    except OSError as error:
        raise can_not_write(folder, error) from error


def can_not_write(path: Path, error: OSError) -> OutputError:
    """The error to raise for a file or folder that the system does not let us write."""
    return OutputError(
        f"{path} can not be written: {error.strerror or error}. Choose another place, or make room there and allow "
        "writing."
    )


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON. Raises `TypeError` for what JSON can not hold, before any file is touched."""
    write_bytes(path, (json.dumps(data, indent=2, allow_nan=False) + "\n").encode())


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name, from any device."""
    # Clones undo shared storage, which the format refuses.
    on_cpu = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    write_bytes(path, safetensors.torch.save(on_cpu))


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises `CheckpointError` if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"Expected a file {path}, found none. Is this the folder of a saved model or run?"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path} is damaged: it is not valid JSON ({error}). Restore it or save the model anew."
        ) from error
    except OSError as error:
        raise CheckpointError(f"{path} can not be read: {error.strerror or error}.") from error


def read_safetensors(path: Path, wanted: Callable[[str], bool] | None = None) -> dict[str, Tensor]:
    """The tensors of a file, on the CPU; only those whose names are `wanted` are read.

    Raises `CheckpointError` if the file is missing, truncated or damaged.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names if wanted is None or wanted(name)}
    except FileNotFoundError:
        raise CheckpointError(
            f"Expected a file {path}, found none. Is this the folder of a saved model or run?"
        ) from None
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is truncated or damaged ({error}). Copy the file again if there is another "
            "copy, or save the model anew."
        ) from error


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder that appears under its name only when the block ends without an error.

    An existing folder of that name is replaced then, and kept as it was if the block fails. Raises `OutputError` if no
    folder can be made there.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".unfinished"))
    except OSError as error:
        raise can_not_write(folder, error) from error
    try:
        yield temporary
        try:
            temporary.chmod(0o755)
            _put_in_place(temporary, folder)
        except OSError as error:
            raise can_not_write(folder, error) from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _put_in_place(temporary: Path, folder: Path) -> None:
    """Give `temporary` the name `folder`, whose old content goes if that succeeds and comes back if it does not."""
    if not folder.exists():
        os.replace(temporary, folder)
        return
    replaced = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.", suffix=".replaced"))
    os.replace(folder, replaced / "old")
    try:
        os.replace(temporary, folder)
    except BaseException:
        os.replace(replaced / "old", folder)
        replaced.rmdir()
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """Delete what a killed process left of `new_folder` and `write_bytes` in `folder`."""
    for path in [*folder.glob(".*.unfinished"), *folder.glob(".*.replaced")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def check_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, source: str) -> None:
    """Raise `CheckpointMismatchError` that lists what in `state` is missing, unexpected or of another shape."""
    problems = [f"{name}: missing" for name in expected if name not in state]
    problems += [f"{name}: not part of this model" for name in state if name not in expected]
    problems += [
        f"{name}: shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems:
        shown = "\n  ".join(problems[:8]) + (f"\n  and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise CheckpointMismatchError(
            f"{source} does not fit the model it is loaded into; nothing was changed:\n  {shown}\n"
            "Build the model from the configuration saved beside the weights."
        )


def load_state(
    module: torch.nn.Module, state: Mapping[str, Tensor], *, source: str, expected: Mapping[str, Tensor]
) -> None:
    """Load `state` into `module`, all of it or nothing.

    `expected` is the part of the module's state that must be there. Raises `CheckpointMismatchError` as `check_state`
    does, before any weight changes.
    """
    check_state(state, expected, source=source)
    module.load_state_dict(dict(state), strict=False)
