"""How much room a cache of tokens and text states takes on disk (`fluid cache build`), from shapes alone."""

import math

import attrs

from fluid_core.planning.outlines import PrecomputedTensor, TextEncoderOutline, TokenizerOutline
from fluid_core.token_space import DiscreteTokens, TokenSpace


@attrs.frozen(kw_only=True)
class CacheSize:
    """Bytes for all images, without the captions themselves and without mirror images."""

    num_images: int
    tokens_are_ids: bool
    tokens_float32: int
    tokens_half: int
    """With `--dtype bfloat16` or `float16`; ids take the same room."""

    text_length: int
    """Tokens of each caption that are assumed."""

    text_float32: int
    """0 for a text encoder that trains with the model, whose states can not be kept."""

    text_bfloat16: int


def cache_size(
    tokenizer: TokenizerOutline, text: TextEncoderOutline | None, *, num_images: int, text_length: int
) -> CacheSize:
    """What the tensors of `num_images` take, each with a caption of its own of `text_length` tokens."""
    text_values = 0 if text is None else text_length * text.width

    def tokens(largest: int) -> int:
        return sum(_num_bytes(tensor, tokenizer.token_space, largest) for tensor in tokenizer.precomputed)

    return CacheSize(
        num_images=num_images,
        tokens_are_ids=not any(tensor.dtype.is_floating_point for tensor in tokenizer.precomputed),
        tokens_float32=num_images * tokens(4),
        tokens_half=num_images * tokens(2),
        text_length=text_length,
        text_float32=num_images * text_values * 4,
        text_bfloat16=num_images * text_values * 2,
    )


def _num_bytes(tensor: PrecomputedTensor, space: TokenSpace, largest: int) -> int:
    """Fractions take at most `largest` bytes; ids the smallest type of the cache that holds the vocabulary."""
    size = tensor.dtype.itemsize
    if tensor.dtype.is_floating_point:
        size = min(size, largest)
    elif isinstance(space, DiscreteTokens):
        size = 1 if space.vocabulary_size <= 2**8 else 2 if space.vocabulary_size <= 2**16 else 4
    return math.prod(tensor.shape) * size
