"""The metrics of a run as TensorBoard events: an extra, beside `metrics.jsonl`."""

import math
from pathlib import Path
from typing import Any

from fluid_core.errors import MissingPackageError


class EventFiles:
    """Writes scalars below `folder`. On resume, what came after `resume_step` is hidden: those steps run again.

    Raises `MissingPackageError` if TensorBoard is not installed.
    """

    def __init__(self, folder: Path, *, resume_step: int = 0) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise MissingPackageError(
                "training.tensorboard needs the package tensorboard, which is not installed. Run: pip install "
                "'fluid-core[tensorboard]', or set training.tensorboard to false."
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=resume_step + 1 if resume_step else None)

    def write(self, *, step: int, **values: Any) -> None:
        """The finite numbers of a row of metrics, those of validation in a group of their own."""
        for name, value in values.items():
            if isinstance(value, int | float) and math.isfinite(value):
                group, _, rest = name.partition("_")
                tag = f"validation/{rest}" if group == "validation" else f"training/{name}"
                self._writer.add_scalar(tag, value, step)

    def close(self) -> None:
        """Write what is still in memory."""
        self._writer.close()
