"""`latent_statistics.json`: statistics of each token channel, and what they are statistics of."""

from pathlib import Path
from typing import Any

import attrs
from attrs.validators import ge, gt, instance_of, optional

from fluid_core.atomic_files import read_json, write_json
from fluid_core.errors import CheckpointError, CheckpointMismatchError

FILE_NAME = "latent_statistics.json"
"""Name of the file beside an autoencoder's weights."""

FORMAT_VERSION = 1

_MEASURE = (
    "Measure them for this one: fluid tokenizer measure CONFIG.toml tokenizer.options.latents=scaled --out FILE, which "
    "builds the tokenizer without statistics. "
)


def _numbers(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(one, int | float) for one in value):
        raise ValueError("a list of numbers is missing")
    return tuple(float(one) for one in value)


@attrs.frozen(kw_only=True)
class StatisticsRecord:
    """What the file holds. `ValueError` and `TypeError` are raised for values of another kind."""

    mean: tuple[float, ...] = attrs.field(converter=_numbers)
    std: tuple[float, ...] = attrs.field(converter=_numbers)
    num_vectors: int | None = attrs.field(default=None, validator=optional([instance_of(int), gt(0)]))
    num_images: int | None = attrs.field(default=None, validator=optional([instance_of(int), ge(0)]))
    source: str = attrs.field(default="unknown", validator=instance_of(str))
    """Which images they were measured on."""

    tokenizer_identity: str = attrs.field(validator=instance_of(str))
    """`identity()` of the tokenizer: its configuration and weights."""

    patch_size: int = attrs.field(validator=[instance_of(int), gt(0)])
    image_size: int = attrs.field(validator=[instance_of(int), gt(0)])

    def __attrs_post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not all(value > 0 for value in self.std):
            raise ValueError("mean and std must have one number for each channel, those of std above zero")


def write_statistics(file: Path, record: StatisticsRecord) -> None:
    """Write the file, whole or not at all. Raises `OutputError` if that is impossible."""
    write_json(file, {"format_version": FORMAT_VERSION, **attrs.asdict(record)})


def read_statistics(file: Path) -> StatisticsRecord:
    """What the file holds. Raises `CheckpointError` for one that is missing, damaged or of a newer format."""
    if not file.is_file():
        raise CheckpointError(f"Expected latent statistics in the file '{file}', found no such file. {_MEASURE}")
    data = read_json(file)
    version = data.pop("format_version", None) if isinstance(data, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"Expected latent statistics of format {FORMAT_VERSION} in '{file}', found "
            f"{'something else' if version is None else f'format {version}'}. {_MEASURE}"
        )
    try:
        return StatisticsRecord(**data)
    except (TypeError, ValueError) as error:
        reason = error.args[0] if error.args else error
        raise CheckpointError(f"The latent statistics in '{file}' are damaged: {reason}. {_MEASURE}") from error


def check_statistics(
    record: StatisticsRecord, file: Path, *, channels: int, patch_size: int, image_size: int, identity: str
) -> None:
    """Raise `CheckpointMismatchError`, naming both sides, for statistics of other tokens than these."""
    if record.patch_size != patch_size:
        found, expected = f"patch size {record.patch_size}", f"patch size {patch_size}"
    elif len(record.mean) != channels:
        found, expected = f"{len(record.mean)} channels", f"{channels} channels"
    elif record.tokenizer_identity != identity:
        found = f"the autoencoder {record.tokenizer_identity[:12]}"
        expected = f"the autoencoder {identity[:12]}, another one (or the same with another dtype or configuration)"
    else:
        return
    raise CheckpointMismatchError(
        f"Expected latent statistics of {expected}, found those of {found} in '{file}' (measured on {record.source}, "
        f"images of {record.image_size} x {record.image_size}; this tokenizer takes {image_size} x {image_size}). "
        f'{_MEASURE}Or leave the statistics out with latents = "scaled".'
    )
