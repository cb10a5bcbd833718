"""What is in one shard: tensors by name, captions as bytes, text states at their true length.

A text that several items share is stored once. Lists of unequal lengths are one long tensor and the places where each
of them ends.
"""

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from fluid_core.data.token_cache.manifest import CachedTensor
from fluid_core.errors import DataError
from fluid_core.exchange import TextFeatures

PRECOMPUTED, MIRRORED = "precomputed.", "mirrored."
"""Beginnings of the names of what the tokenizer returned, for images and for their mirror images."""

CAPTION_BYTES, CAPTION_ENDS = "caption.bytes", "caption.ends"
TEXT_STATES, TEXT_ENDS, TEXT_ROWS = "text.states", "text.ends", "text.rows"
SOURCE_BYTES, SOURCE_ENDS = "source.bytes", "source.ends"
"""Index or key of each item in the data set that was encoded."""


class ShardContent:
    """Collects the items of one shard, batch after batch."""

    def __init__(self, tensors: Sequence[CachedTensor], *, both_flips: bool, text_dtype: torch.dtype | None) -> None:
        self._parts: dict[str, list[Tensor]] = {
            f"{kind}{tensor.name}": []
            for kind in ((PRECOMPUTED, MIRRORED) if both_flips else (PRECOMPUTED,))
            for tensor in tensors
        }
        self._captions: list[str] = []
        self._source: list[str] = []
        self._text_dtype = text_dtype
        self._text_rows: dict[str, int] = {}
        self._texts: list[Tensor] = []

    @property
    def num_items(self) -> int:
        """Items so far; mirror images belong to the item of their image."""
        return len(self._source)

    def add(
        self,
        stored: dict[str, Tensor],
        *,
        mirrored: dict[str, Tensor] | None,
        captions: Sequence[str],
        source: Sequence[str],
    ) -> None:
        """One batch: tensors of the images, and of their mirror images, with the batch as first axis."""
        for kind, tensors in ((PRECOMPUTED, stored), (MIRRORED, mirrored or {})):
            for name, tensor in tensors.items():
                self._parts[f"{kind}{name}"].append(tensor)
        self._captions += captions
        self._source += source

    def new_captions(self, captions: Iterable[str]) -> list[str]:
        """Those among `captions`, each once, whose states are not in the shard yet."""
        return [caption for caption in dict.fromkeys(captions) if caption not in self._text_rows]

    def add_texts(self, captions: Sequence[str], features: TextFeatures) -> None:
        """States of captions that `new_captions` named. Raises `DataError` for states that stand behind padding."""
        assert self._text_dtype is not None
        lengths = features.mask.sum(dim=1).tolist()
        prefix = torch.arange(features.mask.shape[1], device=features.mask.device) < features.mask.sum(dim=1)[:, None]
        if not torch.equal(prefix, features.mask):
            raise DataError(
                "Expected a text encoder that pads captions at their end, found states behind padding, which a cache "
                "can not keep in place. Leave the text out of the cache (--no-text)."
            )
        # One copy of the whole batch: asking a GPU for every caption would take longer than encoding them.
        states = features.states.detach().cpu()
        for caption, row, length in zip(captions, states, lengths, strict=True):
            self._text_rows[caption] = len(self._texts)
            self._texts.append(row[:length].to(self._text_dtype, copy=True))

    def tensors(self) -> dict[str, Tensor]:
        """Everything in the shard, by name."""
        content = {name: torch.cat(parts) for name, parts in self._parts.items() if parts}
        content[CAPTION_BYTES], content[CAPTION_ENDS] = _joined(self._captions)
        content[SOURCE_BYTES], content[SOURCE_ENDS] = _joined(self._source)
        if self._text_dtype is not None and self._texts:
            content[TEXT_STATES] = torch.cat(self._texts)
            content[TEXT_ENDS] = _ends(self._texts)
            rows = [self._text_rows[caption] for caption in self._captions]
            content[TEXT_ROWS] = torch.tensor(rows, dtype=torch.int32)
        return content


def _joined(texts: Sequence[str]) -> tuple[UInt8[Tensor, "bytes"], Int[Tensor, "parts"]]:
    encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
    # A tensor of no bytes can not be made from a buffer.
    joined = torch.frombuffer(bytearray(b"".join(encoded) or b"\0"), dtype=torch.uint8)
    return joined, _ends(encoded)


def _ends(parts: Sequence[bytes | Tensor]) -> Int[Tensor, "parts"]:
    return torch.tensor([len(part) for part in parts], dtype=torch.int64).cumsum(dim=0)


class ShardView:
    """Items of one shard, read from its tensors, which may lie in a file that is mapped into memory."""

    def __init__(self, content: dict[str, Tensor], tensors: Sequence[CachedTensor]) -> None:
        self._content = content
        self._tensors = tensors
        self._caption_ends: list[int] = content[CAPTION_ENDS].tolist()
        self._source_ends: list[int] = content[SOURCE_ENDS].tolist()
        has_text = TEXT_STATES in content
        self._text_ends: list[int] = content[TEXT_ENDS].tolist() if has_text else []
        self._text_rows: list[int] = content[TEXT_ROWS].tolist() if has_text else []

    def stored(self, row: int, tensor: CachedTensor, *, mirrored: bool) -> Tensor:
        """One tensor of an item as it is stored: a view, not a copy."""
        return self._content[f"{MIRRORED if mirrored else PRECOMPUTED}{tensor.name}"][row]

    def caption(self, row: int) -> str:
        """The caption of an item."""
        return self._joined_text(CAPTION_BYTES, self._caption_ends, row)

    def source(self, row: int) -> str:
        """Index or key of an item in the data set that was encoded."""
        return self._joined_text(SOURCE_BYTES, self._source_ends, row)

    def _joined_text(self, name: str, ends: list[int], row: int) -> str:
        first, stop = _range(ends, row)
        return self._content[name][first:stop].numpy().tobytes().decode("utf-8", "surrogatepass")

    def text(self, row: int) -> Float[Tensor, "text_length text_width"] | None:
        """A copy of the states of an item's caption, in float32; None if the shard keeps captions alone."""
        if not self._text_rows:
            return None
        first, stop = _range(self._text_ends, self._text_rows[row])
        return self._content[TEXT_STATES][first:stop].to(torch.float32, copy=True)


def _range(ends: list[int], row: int) -> tuple[int, int]:
    return (ends[row - 1] if row else 0), ends[row]
