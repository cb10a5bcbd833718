"""What a cache holds and how it was made, as it stands in its `manifest.json`."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from fluid_core.atomic_files import read_json, write_json
from fluid_core.configuration.structuring import structure, unstructure
from fluid_core.data.skipped_items import SkippedItem
from fluid_core.errors import CheckpointError

FORMAT_VERSION = 1
"""Version of the layout; a reader refuses versions above its own."""

MANIFEST_FILE = "manifest.json"
"""Written last: a folder without it is no finished cache."""

PLAN_FILE = "unfinished.json"
"""The manifest of a cache in the making, without its shards."""

TOKENIZER_FILE = "tokenizer.safetensors"
"""What a tokenizer had learned from the images before it encoded them."""

_MOST_SHOWN = 8


@attrs.frozen(kw_only=True)
class CachedPart:
    """A tokenizer or text encoder that made a cache."""

    name: str
    """Its name in the catalog."""

    options: dict[str, Any]
    provided_by: str
    """Distribution and version."""

    identity: str
    """Hash of what its results depend on: configuration and weights."""

    weights_dtype: str | None
    """The type its weights had, in which it computed; None for one without weights."""

    def __str__(self) -> str:
        weights = f", {self.weights_dtype} weights" if self.weights_dtype else ""
        return f"{self.name} (identity {self.identity[:12]}{weights})"


@attrs.frozen(kw_only=True)
class CachedSource:
    """The data set whose images were encoded."""

    name: str
    options: dict[str, Any]
    """All of them, also those that had their default: the crop and the place of the files are among them."""

    provided_by: str
    seed: int


@attrs.frozen(kw_only=True)
class CachedTensor:
    """One of the tensors that `Tokenizer.precompute` returns."""

    name: str
    shape: tuple[int, ...]
    """Of one image."""

    dtype: str
    """As the tokenizer returns and receives it."""

    stored_as: str


@attrs.frozen(kw_only=True)
class CachedText:
    """The text states in a cache."""

    encoder: CachedPart
    width: int
    stored_as: str


@attrs.frozen(kw_only=True)
class Shard:
    """One file of a cache. `num_items` counts images of the source, not their mirror images."""

    file: str
    num_items: int
    num_bytes: int
    sha256: str
    skipped: tuple[SkippedItem, ...] = ()


@attrs.frozen(kw_only=True)
class Manifest:
    """Everything about a cache but the numbers themselves."""

    format_version: int = FORMAT_VERSION
    packages: dict[str, str]
    """Versions of the packages that wrote it."""

    image_size: tuple[int, int]
    """Height and width in pixels."""

    crop: str
    """How images were brought to that size, in words."""

    source: CachedSource
    num_source_items: dict[str, int | None]
    """Items of the source in each split; None for a stream, which does not know."""

    both_flips: bool
    tokenizer: CachedPart
    tensors: tuple[CachedTensor, ...]
    text: CachedText | None
    """None if captions alone were kept."""

    items_per_shard: int
    """Items of the source that a shard covers; fewer are in it if some could not be read."""

    shards: dict[str, tuple[Shard, ...]]
    """By split, in the order of the source."""

    damaged_shards: dict[str, tuple[SkippedItem, ...]] = attrs.field(factory=dict)
    """By split, shards of a stream that broke off."""

    @property
    def skipped(self) -> tuple[SkippedItem, ...]:
        """Everything of the source that could not be used."""
        items = tuple(item for shards in self.shards.values() for shard in shards for item in shard.skipped)
        return items + tuple(one for damaged in self.damaged_shards.values() for one in damaged)

    def num_items(self, split: str) -> int:
        """Items to train on: images of the source, and as many again if both flips were encoded."""
        return sum(shard.num_items for shard in self.shards[split]) * (2 if self.both_flips else 1)

    @property
    def num_bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.num_bytes for shards in self.shards.values() for shard in shards)

    def write(self, file: Path) -> None:
        """Write it, whole or not at all. Raises `OutputError` if that is impossible."""
        write_json(file, unstructure(self))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a finished cache.

    Raises `CheckpointError` for a folder that holds none, only a part of one, one of a newer format, or a damaged one.
    """
    if not (folder / MANIFEST_FILE).is_file() and (folder / PLAN_FILE).is_file():
        raise CheckpointError(
            f"Expected a finished cache in {folder}, found one in the making. Run `fluid cache build` again with the "
            "configuration and the options it was started with: it goes on where it stopped."
        )
    return read_manifest_file(folder / MANIFEST_FILE)


def read_manifest_file(file: Path) -> Manifest:
    """A manifest from its file. Raises `CheckpointError` if it is missing, damaged, or of a newer format."""
    if not file.is_file():
        raise CheckpointError(
            f"Expected a cache with a {file.name} in {file.parent}, found none. Build one with `fluid cache build`, or "
            "correct the path."
        )
    data = read_json(file)
    version = data.get("format_version") if isinstance(data, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"{file} has format {version}; this version of fluid-core reads formats up to {FORMAT_VERSION}. Upgrade "
            "with: pip install --upgrade fluid-core."
        )
    try:
        return structure(data, Manifest, subject=f"manifest {file}")
    except ValueError as error:
        raise CheckpointError(f"{file} is damaged. {error} Build the cache anew.") from error


def differences(before: Manifest, after: Manifest) -> list[str]:
    """What `after` would make otherwise than `before`, one line for each value, from what it was to what it is."""
    one, other = dict(_leaves(_compared(before), "")), dict(_leaves(_compared(after), ""))
    keys = [key for key in {**one, **other} if one.get(key, _ABSENT) != other.get(key, _ABSENT)]
    lines = [f"{key}: {_text(one, key)} -> {_text(other, key)}" for key in keys[:_MOST_SHOWN]]
    return [*lines, f"and {len(keys) - _MOST_SHOWN} more"] if len(keys) > _MOST_SHOWN else lines


_ABSENT = object()


def _compared(manifest: Manifest) -> dict[str, Any]:
    """The values that decide about the content: neither versions of packages nor how it is cut into shards."""
    plain = unstructure(manifest)
    for key in ("packages", "items_per_shard", "shards", "damaged_shards"):
        del plain[key]
    for part in (plain["tokenizer"], plain["source"], *([plain["text"]["encoder"]] if plain["text"] else [])):
        del part["provided_by"]
    return dict(plain)


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif value != {}:
        yield key, value


def _text(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False) if key in values else "not set"
