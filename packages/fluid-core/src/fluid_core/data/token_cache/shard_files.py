"""Shards on disk: written whole with a checksum, checked, and mapped into memory for reading.

A shard is written under a temporary name, flushed and renamed; then a note of its checksum is written beside it in the
same way. A shard without its note does not count.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from fluid_core.atomic_files import read_json, write_bytes, write_json
from fluid_core.configuration.structuring import structure, unstructure
from fluid_core.data.skipped_items import SkippedItem
from fluid_core.data.token_cache.manifest import CachedTensor, Manifest, Shard
from fluid_core.data.token_cache.shard_content import ShardView
from fluid_core.errors import CheckpointError, ConfigurationError

_CHUNK = 2**22


def _note(folder: Path, name: str) -> Path:
    return folder / f"{name}.done.json"


def write_shard(
    folder: Path, name: str, content: dict[str, Tensor], *, num_items: int, skipped: Sequence[SkippedItem]
) -> Shard:
    """Write a shard and the note that it is whole. Raises `OutputError` if that is impossible."""
    data = safetensors.torch.save({key: tensor.contiguous() for key, tensor in content.items()})
    shard = Shard(
        file=name,
        num_items=num_items,
        num_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        skipped=tuple(skipped),
    )
    _note(folder, name).unlink(missing_ok=True)
    write_bytes(folder / name, data)
    write_json(_note(folder, name), unstructure(shard))
    return shard


def finished_shard(folder: Path, name: str) -> Shard | None:
    """What the note beside a shard says, if the shard is there in full size; None if it is to be written."""
    note = _note(folder, name)
    if not note.is_file():
        return None
    try:
        shard = structure(read_json(note), Shard, subject=f"note {note}")
    except (CheckpointError, ConfigurationError):
        return None
    return shard if _size(folder / name) == shard.num_bytes else None


def remove_notes(folder: Path) -> None:
    """Delete the notes, once everything they say is in the manifest."""
    for note in folder.glob("*.safetensors.done.json"):
        note.unlink()


def check_sizes(folder: Path, shards: Sequence[Shard]) -> None:
    """Raise `CheckpointError`, naming the files, for shards that are missing or of another size than they were."""
    problems = []
    for shard in shards:
        size = _size(folder / shard.file)
        if size is None:
            problems.append(f"{shard.file}: missing")
        elif size != shard.num_bytes:
            problems.append(f"{shard.file}: {size} bytes, expected {shard.num_bytes}")
    _raise_if(problems, folder)


def check_checksums(folder: Path, shards: Sequence[Shard]) -> None:
    """Read every shard; raise `CheckpointError`, naming the files, for those that changed since they were written."""
    check_sizes(folder, shards)
    _raise_if([problem for shard in shards for problem in checksum_problems(folder, shard)], folder)


def checksum_problems(folder: Path, shard: Shard) -> list[str]:
    """What is wrong with the bytes of one shard, in words; empty if nothing is."""
    digest = hashlib.sha256()
    with (folder / shard.file).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    found = digest.hexdigest()
    return [] if found == shard.sha256 else [f"{shard.file}: SHA-256 {found}, expected {shard.sha256}"]


def _raise_if(problems: list[str], folder: Path) -> None:
    if not problems:
        return
    shown = "\n  ".join(problems[:8]) + (f"\n  and {len(problems) - 8} more" if len(problems) > 8 else "")
    raise CheckpointError(
        f"The cache in {folder} is damaged:\n  {shown}\nCopy these files again if there is another copy, or build the "
        "cache anew."
    )


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None


class OpenShards:
    """Shards mapped into memory, the last used ones of which stay open. Several threads may read at once."""

    def __init__(self, folder: Path, manifest: Manifest, *, most_open: int) -> None:
        self._folder = folder
        self._tensors: tuple[CachedTensor, ...] = manifest.tensors
        self._most_open = most_open
        self._open: OrderedDict[str, ShardView] = OrderedDict()
        self._lock = threading.Lock()

    def view(self, shard: Shard) -> ShardView:
        """The items of a shard. Raises `CheckpointError` if it is missing or damaged."""
        with self._lock:
            view = self._open.pop(shard.file, None)
            if view is None:
                view = ShardView(self._mapped(shard), self._tensors)
                while len(self._open) >= self._most_open:
                    self._open.popitem(last=False)
            self._open[shard.file] = view
            return view

    @property
    def num_open(self) -> int:
        """How many shards are open."""
        return len(self._open)

    def _mapped(self, shard: Shard) -> dict[str, Tensor]:
        try:
            # The tensors keep the mapping alive once the handle is closed.
            with safetensors.safe_open(self._folder / shard.file, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
        except (safetensors.SafetensorError, OSError) as error:
            raise CheckpointError(
                f"The cache in {self._folder} is damaged: {shard.file} can not be read ({error}). Copy it again if "
                "there is another copy, or build the cache anew."
            ) from error
