"""How large a cache will be and how long it will take, measured on a few of its images before it is built."""

import shutil
import time
from pathlib import Path

import attrs
from torch import Tensor

from fluid_core.data.token_cache.encoding import CacheEncoder, read_batches
from fluid_core.data.token_cache.manifest import CachedTensor
from fluid_core.data.token_cache.source import Source
from fluid_core.data.token_cache.stored_types import cached_tensors
from fluid_core.errors import DataError, OutputError

_MARGIN = 1.02
"""Room that is asked for, over the estimate: captions differ in length from shard to shard."""


@attrs.frozen(kw_only=True, eq=False)
class Measurement:
    """What a few images told about all of them."""

    tensors: tuple[CachedTensor, ...]
    text_width: int | None
    num_measured: int
    bytes_per_item: float
    seconds_per_item: float


@attrs.frozen(kw_only=True)
class SizeEstimate:
    """What a build will write, as far as the measured images are like the others."""

    num_items: int
    """Images still to encode; for a stream, about."""

    num_bytes: int
    seconds: float
    is_exact: bool
    """Whether the number of images is known."""

    num_finished: int
    """Images in shards that an earlier build has finished."""

    num_free_bytes: int
    """Room on the disk."""

    def __str__(self) -> str:
        about = "" if self.is_exact else "about "
        finished = f" ({self.num_finished:,} are there already)" if self.num_finished else ""
        return (
            f"{about}{self.num_items:,} images to encode{finished}: about {readable_bytes(self.num_bytes)} in about "
            f"{readable_seconds(self.seconds)}; {readable_bytes(self.num_free_bytes)} free on the disk"
        )


def measure(source: Source, encoder: CacheEncoder, *, batch_size: int, dtype: str) -> Measurement:
    """Encode two batches of a split: one to warm up, one by the clock. Raises `DataError` if no image can be read."""
    # Every other image for each batch, so that the second one is read as freshly as all others will be.
    items = list(source.examples(2 * batch_size))
    tensors: tuple[CachedTensor, ...] = ()
    num_measured, num_bytes, seconds = 0, 0, 0.0
    reasons: list[str] = []
    for part in (items[::2], items[1::2]):
        started = time.perf_counter()
        for batch in read_batches(iter(part), batch_size):
            reasons += [one.reason for one in batch.skipped]
            if not batch.items:
                continue
            if not tensors:
                tensors = cached_tensors(encoder.precomputed(batch.items), encoder.tokenizer.token_space, dtype=dtype)
                # Clocks start after this first call, which makes kernels and allocates memory.
                started = time.perf_counter()
            content = encoder.empty_shard(tensors)
            encoder.add(content, batch, tensors)
            num_measured += len(batch.items)
            num_bytes += _num_bytes(content.tensors())
            seconds = (time.perf_counter() - started) / len(batch.items)
    if not tensors:
        listed = "".join(f"\n  {reason}" for reason in reasons[:5])
        raise DataError(f"Expected images that can be read, found none among {len(items)} of the data set.{listed}")
    return Measurement(
        tensors=tensors,
        text_width=None if encoder.text_encoder is None else encoder.text_encoder.width,
        num_measured=num_measured,
        bytes_per_item=num_bytes / num_measured,
        seconds_per_item=seconds,
    )


def _num_bytes(content: dict[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in content.values())


def estimate(
    measurement: Measurement, *, num_items: int, num_finished: int, is_exact: bool, folder: Path
) -> SizeEstimate:
    """What is left to do of `num_items` images, `num_finished` of which are done."""
    left = max(num_items - num_finished, 0)
    return SizeEstimate(
        num_items=left,
        num_bytes=round(left * measurement.bytes_per_item),
        seconds=left * measurement.seconds_per_item,
        is_exact=is_exact,
        num_finished=num_finished,
        num_free_bytes=free_bytes(folder),
    )


def free_bytes(folder: Path) -> int:
    """Room on the disk that holds `folder`, which may not exist yet."""
    existing = next(path for path in (folder, *folder.resolve().parents) if path.is_dir())
    return shutil.disk_usage(existing).free


def check_room(expected: SizeEstimate, folder: Path) -> None:
    """Raise `OutputError` if the disk has too little room for what is left to write."""
    needed = round(expected.num_bytes * _MARGIN)
    if needed > expected.num_free_bytes:
        raise OutputError(
            f"Expected room for about {readable_bytes(needed)} on the disk of {folder}, found "
            f"{readable_bytes(expected.num_free_bytes)}. Make room, choose another disk, or store less: "
            "--dtype bfloat16 and --text-dtype bfloat16 take half, --no-text leaves the text states out."
        )


def readable_bytes(number: int) -> str:
    """Such as `1.69 TB`: powers of a thousand."""
    if number < 1000:
        return f"{number} bytes"
    size = float(number)
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 1000:
            return f"{size:.3g} {unit}"
    return f"{size / 1000:.3g} PB"


def readable_seconds(seconds: float) -> str:
    """Such as `3 h 20 min`."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours / 24:.1f} days"
