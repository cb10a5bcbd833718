"""A text encoder without a vocabulary: UTF-8 bytes, embedded by tables that train with the model."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from fluid_core.exchange import TextFeatures
from fluid_core.text.options import ByteEncoderOptions
from fluid_core.text.prompts import check_prompts, place, report_overlong

_START, _END, _PADDING = 256, 257, 258
_NUM_MARKS = 2
"""Start and end, around the bytes of every prompt."""


class ByteEncoder(nn.Module):
    """Each state is the embedding of one byte plus that of its place in the prompt, about unit variance in
    all.

    Nothing is mixed between bytes here: that is the work of the trainable aligner behind every text encoder.
    """

    frozen = False

    def __init__(self, options: ByteEncoderOptions | None = None) -> None:
        super().__init__()
        self.options = options = options or ByteEncoderOptions()
        self.width = options.width
        self.max_length = options.max_length
        self.byte_embedding = nn.Embedding(_PADDING + 1, options.width, padding_idx=_PADDING)
        self.position_embedding = nn.Embedding(options.max_length, options.width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh tables; byte and place contribute half of the variance each."""
        nn.init.normal_(self.byte_embedding.weight, std=0.5**0.5)
        nn.init.normal_(self.position_embedding.weight, std=0.5**0.5)
        with torch.no_grad():
            self.byte_embedding.weight[_PADDING].zero_()

    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        """One state per byte, and one each for start and end; states of padding are zero.

        Raises `PromptError` for an empty prompt, and for one of more than `max_length - 2` bytes unless the
        options say to truncate; a cut falls between characters.
        """
        ids, mask = self._ids(check_prompts(prompts))
        positions = self.position_embedding.weight[: ids.shape[1]]
        states = (self.byte_embedding(ids) + positions) * mask[:, :, None]
        return TextFeatures(states=states, mask=mask)

    def _ids(self, prompts: list[str]) -> tuple[Int[Tensor, "batch text"], Bool[Tensor, "batch text"]]:
        rows = [
            [_START, *self._bytes(prompt, place(index, len(prompts))), _END]
            for index, prompt in enumerate(prompts)
        ]
        longest = max(len(row) for row in rows)
        padded = [row + [_PADDING] * (longest - len(row)) for row in rows]
        ids = torch.tensor(padded, device=self.byte_embedding.weight.device)
        return ids, ids != _PADDING

    def _bytes(self, prompt: str, where: str) -> bytes:
        encoded = prompt.encode()
        limit = self.max_length - _NUM_MARKS
        if len(encoded) <= limit:
            return encoded
        kept = encoded[:limit].decode(errors="ignore")
        report_overlong(
            prompt,
            where,
            length=len(encoded),
            limit=limit,
            unit="bytes",
            overlong=self.options.overlong,
            cut=prompt[len(kept) :],
        )
        return kept.encode()


def build_byte_encoder(options: ByteEncoderOptions) -> ByteEncoder:
    """A new byte encoder with freshly drawn tables."""
    return ByteEncoder(options)
