"""Metrics of a run as JSON lines, one object per logged step."""

import json
import math
from pathlib import Path
from typing import Any

from fluid_core.atomic_files import can_not_write, write_bytes
from fluid_core.errors import CheckpointError

OF_THE_MACHINE = ("images_per_second", "seconds", "seconds_left", "model_flops_utilisation", "memory_bytes")
"""Keys of rows that depend on the machine and the moment: all others are the same in a run that is repeated."""


class MetricsFile:
    """Appends to `metrics.jsonl`. On resume, rows after the checkpoint are dropped: those steps run again."""

    def __init__(self, path: Path, *, resume_step: int = 0) -> None:
        self._path = path
        kept = [row for row in read_metrics(path) if row["step"] <= resume_step] if path.exists() else []
        write_bytes(path, "".join(json.dumps(row) + "\n" for row in kept).encode())

    def write(self, **row: Any) -> None:
        """Add one row. Numbers that JSON can not hold become null. Raises `OutputError` if there is no room for it."""
        finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        try:
            with self._path.open("a") as file:
                file.write(json.dumps(finite) + "\n")
        except OSError as error:
            raise can_not_write(self._path, error) from error


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All rows of a metrics file. A last line cut short by a kill is left out.

    Raises `CheckpointError` for a missing file or a damaged line before the last.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise CheckpointError(f"Expected the metrics of a run, found no file {path}.") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise CheckpointError(f"{path} is damaged: line {number} is not valid JSON.") from None
    return rows
