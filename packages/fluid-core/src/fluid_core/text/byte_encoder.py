"""A text encoder without a vocabulary: UTF-8 bytes, embedded by tables that train with the model."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fluid_core.exchange import TextFeatures
from fluid_core.text.options import ByteEncoderOptions
from fluid_core.text.prompts import check_prompts, place, report_overlong

_START, _END, _PADDING = 256, 257, 258
_HASH_MULTIPLIER, _HASH_MODULUS = 1_000_003, 2_147_483_647
_SPACE = ord(" ")
_NUM_MARKS = 2
"""Start and end, around the bytes of every prompt."""


class ByteEncoder(nn.Module):
    """Each state is the embedding of one byte, of the n-grams of bytes that end there, and of its place in the prompt.

    The n-grams are hashed into one table (as in the Byte Latent Transformer, arXiv 2412.09871): the last byte of a word
    carries the word, wherever it stands. Single bytes would leave a small model to discover spelling first. States have
    about unit variance. Nothing else is mixed between bytes: that is the work of the trainable aligner.

    With `merge_words` the embeddings of the bytes between two spaces are summed into one state (as fastText's,
    arXiv 1607.04606), which holds the place of the word. The marks count to the first and the last word.
    """

    frozen = False

    def __init__(self, options: ByteEncoderOptions | None = None) -> None:
        super().__init__()
        self.options = options = options or ByteEncoderOptions()
        self.width = options.width
        self.max_length = options.max_length
        self.byte_embedding = nn.Embedding(_PADDING + 1, options.width, padding_idx=_PADDING)
        self.ngram_embedding = nn.Embedding(options.num_ngram_buckets, options.width, padding_idx=0)
        self.position_embedding = nn.Embedding(options.max_length, options.width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh tables; the place in the prompt contributes a tenth of the variance."""
        num_summed = 1 + len(self.options.ngram_sizes)
        content_std = (0.9 / num_summed) ** 0.5
        nn.init.normal_(self.byte_embedding.weight, std=content_std)
        nn.init.normal_(self.ngram_embedding.weight, std=content_std)
        nn.init.normal_(self.position_embedding.weight, std=0.1**0.5)
        with torch.no_grad():
            self.byte_embedding.weight[_PADDING].zero_()
            self.ngram_embedding.weight[0].zero_()

    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        """One state per byte, and one each for start and end, or one per word; states of padding are zero.

        Raises `PromptError` for an empty prompt, and for one of more than `max_length - 2` bytes unless the
        options say to truncate; a cut falls between characters.
        """
        return self._encoded(*self._ids(check_prompts(prompts)))

    def encode_empty(self) -> TextFeatures:
        """States of the empty prompt, one row: those of the two marks alone."""
        ids = torch.tensor([[_START, _END]], device=self.byte_embedding.weight.device)
        return self._encoded(ids, torch.ones_like(ids, dtype=torch.bool))

    def _encoded(self, ids: Int[Tensor, "batch text"], mask: Bool[Tensor, "batch text"]) -> TextFeatures:
        states = self.byte_embedding(ids)
        if self.options.ngram_sizes:
            # One look-up for all sizes: its gradient fills the whole table.
            states = states + self.ngram_embedding(self._ngram_ids(ids)).sum(dim=2)
        if self.options.merge_words:
            shares, mask = _shares_of_words(ids, mask)
            states = shares.to(states.dtype) @ states
        states = states + self.position_embedding.weight[: states.shape[1]]
        return TextFeatures(states=states * mask[:, :, None], mask=mask)

    def _ids(self, prompts: list[str]) -> tuple[Int[Tensor, "batch text"], Bool[Tensor, "batch text"]]:
        rows = [
            [_START, *self._bytes(prompt, place(index, len(prompts))), _END] for index, prompt in enumerate(prompts)
        ]
        longest = max(len(row) for row in rows)
        padded = [row + [_PADDING] * (longest - len(row)) for row in rows]
        ids = torch.tensor(padded, device=self.byte_embedding.weight.device)
        return ids, ids != _PADDING

    def _ngram_ids(self, ids: Int[Tensor, "batch text"]) -> Int[Tensor, "batch text sizes"]:
        """For each byte, rows of the table for the n-grams that end there; row 0 where the prompt is too short."""
        columns = []
        for size in self.options.ngram_sizes:
            columns.append(torch.zeros_like(ids))
            if size <= ids.shape[1]:
                columns[-1][:, size - 1 :] = _hashed_ngrams(ids, size) % (self.options.num_ngram_buckets - 1) + 1
        return torch.stack(columns, dim=2)

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


def _hashed_ngrams(ids: Int[Tensor, "batch text"], size: int) -> Int[Tensor, "batch ngrams"]:
    """A non-negative hash of every run of `size` ids, the same on every machine."""
    # Starting from the size keeps n-grams of different sizes apart.
    hashed = torch.full_like(ids[:, size - 1 :], size)
    for offset in range(size):
        # Reduced at each step, so that no product exceeds 64 bits.
        hashed = (hashed * _HASH_MULTIPLIER + ids[:, offset : ids.shape[1] - size + 1 + offset] + 1) % _HASH_MODULUS
    return hashed


def _shares_of_words(
    ids: Int[Tensor, "batch text"], mask: Bool[Tensor, "batch text"]
) -> tuple[Float[Tensor, "batch words text"], Bool[Tensor, "batch words"]]:
    """What each byte adds to each word, one over the root of the word's length, and which words there are."""
    spaces = ids == _SPACE
    # Spaces in a row leave empty words between them, which are masked like padding.
    word_of = spaces.cumsum(dim=1)
    belongs = torch.nn.functional.one_hot(word_of, int(word_of.max()) + 1).transpose(1, 2)
    belongs = belongs * (mask & ~spaces)[:, None]
    lengths = belongs.sum(dim=2)
    shares = belongs / lengths.clamp(min=1)[:, :, None].float().sqrt()
    return shares, lengths > 0


def build_byte_encoder(options: ByteEncoderOptions) -> ByteEncoder:
    """A new byte encoder with freshly drawn tables."""
    return ByteEncoder(options)
