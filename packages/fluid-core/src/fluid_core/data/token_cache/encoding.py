"""Images and captions through tokenizer and text encoder, a batch at a time, into the content of a shard."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import attrs
import torch
from torch import Tensor

from fluid_core.data.captioned_images import CaptionedImage
from fluid_core.data.skipped_items import SkippedItem
from fluid_core.data.token_cache.manifest import CachedTensor
from fluid_core.data.token_cache.shard_content import ShardContent
from fluid_core.data.token_cache.source import SourceItem
from fluid_core.data.token_cache.stored_types import to_stored
from fluid_core.errors import SkippedItemError
from fluid_core.protocols import TextEncoder, Tokenizer


@attrs.frozen(kw_only=True, eq=False)
class ReadBatch:
    """Items that could be read, their keys, and those that could not."""

    items: tuple[CaptionedImage, ...]
    keys: tuple[str, ...]
    skipped: tuple[SkippedItem, ...]

    @property
    def num_seen(self) -> int:
        """Items looked at."""
        return len(self.items) + len(self.skipped)


def read_batches(items: Iterator[SourceItem], batch_size: int) -> Iterator[ReadBatch]:
    """Every `batch_size` items in turn. The next batch is read in the background while this one is in use."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="cache") as worker:
        ahead = worker.submit(_read, items, batch_size)
        while (batch := ahead.result()).num_seen:
            ahead = worker.submit(_read, items, batch_size)
            yield batch


def _read(items: Iterator[SourceItem], batch_size: int) -> ReadBatch:
    read: list[CaptionedImage] = []
    keys: list[str] = []
    skipped: list[SkippedItem] = []
    while len(keys) + len(skipped) < batch_size:
        item = next(items, None)
        if item is None:
            break
        try:
            read.append(item.read())
            keys.append(item.key)
        except SkippedItemError as error:
            skipped.append(SkippedItem.of(item.key, error))
    return ReadBatch(items=tuple(read), keys=tuple(keys), skipped=tuple(skipped))


@attrs.frozen(kw_only=True, eq=False)
class CacheEncoder:
    """What turns a batch into the content of a shard. `text_encoder` is None where captions alone are kept."""

    tokenizer: Tokenizer
    text_encoder: TextEncoder | None
    device: torch.device
    both_flips: bool
    text_dtype: torch.dtype | None

    @torch.no_grad()
    def precomputed(self, items: Sequence[CaptionedImage]) -> dict[str, Tensor]:
        """What the tokenizer returns for the images of a batch."""
        return self.tokenizer.precompute(self._images(items))

    def empty_shard(self, tensors: Sequence[CachedTensor]) -> ShardContent:
        """A shard to add batches to."""
        return ShardContent(tensors, both_flips=self.both_flips, text_dtype=self.text_dtype)

    @torch.no_grad()
    def add(self, content: ShardContent, batch: ReadBatch, tensors: tuple[CachedTensor, ...]) -> None:
        """Encode a batch. Raises `DataError` for results that can not be stored."""
        if not batch.items:
            return
        images = self._images(batch.items)
        captions = [item.caption for item in batch.items]
        stored = to_stored(self.tokenizer.precompute(images), tensors)
        mirrored = to_stored(self.tokenizer.precompute(images.flip(-1)), tensors) if self.both_flips else None
        if self.text_encoder is not None:
            new = content.new_captions(captions)
            if new:
                content.add_texts(new, self.text_encoder.encode(new))
        content.add(stored, mirrored=mirrored, captions=captions, source=batch.keys)

    def _images(self, items: Sequence[CaptionedImage]) -> Tensor:
        return torch.stack([item.image for item in items]).to(self.device)
