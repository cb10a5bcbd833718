"""What a data set offers whose images went through the tokenizer already, such as a cache on disk."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import attrs
import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.exchange import EncodedBatch, TextFeatures
from fluid_core.protocols import TextEncoder, Tokenizer


@attrs.frozen(kw_only=True, eq=False)
class EncodedImage:
    """One item: what `Tokenizer.precompute` returned for one image, and its caption."""

    precomputed: dict[str, Tensor]
    """The tensors by name, without the axis of the batch."""

    caption: str
    text: Float[Tensor, "text_length text_width"] | None = None
    """States of the caption without padding; None where the caption is still to be encoded."""


@runtime_checkable
class EncodedImages(Protocol):
    """A data set of encoded images with random access: item `i` is the same every time and in every process."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width, in pixels, of the images that were encoded."""

    def __len__(self) -> int:
        """Number of items."""

    def __getitem__(self, index: int) -> EncodedImage:
        """Item `index`, from 0 to `len - 1`; raises `IndexError` outside that range."""

    def connect(self, tokenizer: Tokenizer, text_encoder: TextEncoder) -> None:
        """Make sure that the items belong to these parts of a model, before it trains on them.

        A tokenizer that learns from images and has not yet is given what it had learned when the items were made.
        Raises `CheckpointMismatchError`, with both sides named, for parts that would have made other items.
        """


def stack_encoded(items: Sequence[EncodedImage]) -> EncodedBatch:
    """One batch of several items, their text padded with zeros to the longest of them."""
    names = items[0].precomputed
    return EncodedBatch(
        precomputed={name: torch.stack([item.precomputed[name] for item in items]) for name in names},
        captions=tuple(item.caption for item in items),
        text=_padded([item.text for item in items if item.text is not None]),
    )


def _padded(texts: list[Tensor]) -> TextFeatures | None:
    if not texts:
        return None
    lengths = torch.tensor([len(text) for text in texts])
    states = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True)
    return TextFeatures(states=states, mask=torch.arange(states.shape[1]) < lengths[:, None])
