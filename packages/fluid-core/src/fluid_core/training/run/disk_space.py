"""Whether what a run will write fits on the disk, asked before the first step."""

import shutil
from pathlib import Path

from fluid_core.errors import OutputError
from fluid_core.training.checkpoints.whole import Trained

_MOMENTS = 2
"""Tensors that Adam keeps of each weight."""

_MODELS = 2
"""Folders at the end of a run: averaged and raw weights."""


def bytes_written(model: Trained, *, keep: int) -> int:
    """Bytes of all that a run writes: `keep` checkpoints and the one that replaces the oldest, and the models."""
    weights = sum(tensor.nbytes for tensor in model.saved_state().values())
    trained = sum(p.nbytes for _, p in model.named_parameters() if p.requires_grad)
    return (weights + (1 + _MOMENTS) * trained) * (keep + 1) + _MODELS * weights


def check_disk_space(folder: Path, model: Trained, *, keep: int) -> None:
    """Raise `OutputError`, with numbers, if a run that writes to `folder` would fill its disk.

    What an earlier part of the run left there is overwritten or deleted in time, and counts as free.
    """
    needed = bytes_written(model, keep=keep)
    present = sum(path.stat().st_size for path in folder.rglob("*.safetensors") if path.is_file())
    free = shutil.disk_usage(folder).free
    if needed > free + present:
        raise OutputError(
            f"The run in {folder} will write about {_gib(needed)}: {keep + 1} checkpoints at a time (weights, their "
            f"average and two moments) and the models at the end. Free are {_gib(free)}"
            + (f", besides {_gib(present)} that the run has written" if present else "")
            + ". Make room, lower training.keep_checkpoints, or choose another folder (--out)."
        )


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.2f} GiB" if num_bytes >= 2**27 else f"{num_bytes / 2**20:.1f} MiB"
