"""The record of a result: one JSON that says what was measured, on which model, and with every setting.

A figure that stands alone can not be repeated and compares with nothing. Every evaluation writes its figures through
this module, so that all records can be read in one way.
"""

import importlib.metadata
import math
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import torch

from fluid_core.atomic_files import read_json, write_json
from fluid_core.errors import CheckpointError, InvalidRequestError

FORMAT_VERSION = 1

_PACKAGES = (
    "fluid-core",
    "fluid-tokenizers",
    "fluid-heads",
    "fluid-orders",
    "torch",
    "numpy",
    "pillow",
    "scipy",
    "transformers",
    "diffusers",
)


@attrs.frozen(kw_only=True)
class MeasuredModel:
    """Which model a figure is about."""

    folder: str
    """Its name, without where it lies."""

    identity: str
    """SHA-256 of its weights and of the settings that matter; see `sampling_run.model_identity`."""

    weights: str
    """`ema` or `raw`."""

    num_parameters: int | None = None
    """Weights that train; None if nobody counted."""


@attrs.frozen(kw_only=True)
class ResultRecord:
    """A result with everything that is needed to read it and to measure it again."""

    what: str
    """The protocol in a word, such as `validation-loss`, `fid` or `geneval`."""

    values: Mapping[str, Any]
    """The figures: numbers by name, and tables of them."""

    settings: Mapping[str, Any]
    """Everything that was chosen, and what was found out about the data, such as hashes."""

    seeds: Mapping[str, int | None]
    """Every seed by what it is for."""

    num_images: int
    """Pictures that the figures are about."""

    model: MeasuredModel | None
    """None for pictures of which nobody knows what drew them."""

    device: str
    dtype: str
    """Type of the numbers that were computed with, such as `float32`."""

    notes: Sequence[str] = ()
    """What a reader must know before comparing the figures, in sentences."""

    command: Sequence[str] = attrs.field(factory=lambda: tuple(_command()))
    """What was typed."""

    date: str = attrs.field(factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    """In UTC, as ISO 8601."""

    packages: Mapping[str, str] = attrs.field(factory=lambda: versions())

    def as_json(self) -> dict[str, Any]:
        """The same as plain data.

        Raises `InvalidRequestError` for a figure or setting that is not finite, or of a kind that JSON does not know.
        """
        document = {"format_version": FORMAT_VERSION}
        for field in attrs.fields(ResultRecord):
            value = getattr(self, field.name)
            document[field.name] = _plain(attrs.asdict(value) if attrs.has(type(value)) else value, field.name)
        return document


def write_result(path: Path, record: ResultRecord) -> None:
    """Write a record, whole or not at all. Raises `InvalidRequestError` as `as_json` does, before any file is touched,
    and `OutputError` if the file can not be written.
    """
    write_json(path, record.as_json())


def read_result(path: Path) -> ResultRecord:
    """The record in a file. Raises `CheckpointError` for a file that is missing, damaged, or no such record."""
    found = read_json(path)
    if not isinstance(found, dict) or found.get("format_version") != FORMAT_VERSION:
        version = found.get("format_version") if isinstance(found, dict) else None
        raise CheckpointError(
            f"Expected {path} to be a result of format {FORMAT_VERSION}, found "
            f"{'no result' if version is None else f'format {version}'}. Measure it again with this version."
        )
    values = {name: value for name, value in found.items() if name != "format_version"}
    try:
        model = values.pop("model")
        return ResultRecord(model=None if model is None else MeasuredModel(**model), **values)
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{path} is no whole result: {error}. Measure it again.") from error


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures may depend on, of those that are installed."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def device_name(device: torch.device) -> str:
    """The device in words: its kind, and which GPU it is."""
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_name(device)})"


def _command() -> list[str]:
    program = Path(sys.argv[0]).name if sys.argv else ""
    return [program, *sys.argv[1:]]


def _plain(value: Any, place: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(one, f"{place}.{key}") for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one, f"{place}[{index}]") for index, one in enumerate(value)]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidRequestError(f"Expected a finite number for {place} of a result, found {value}.")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InvalidRequestError(f"Expected plain data for {place} of a result, found a {type(value).__name__}.")
