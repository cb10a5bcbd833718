"""Options of the text encoders. No torch here: listing components must stay fast."""

from typing import Any, Literal

import attrs

from fluid_core.errors import ConfigurationError

Overlong = Literal["error", "truncate"]
"""What to do with a prompt longer than the encoder takes: refuse it, or cut it and log what was cut."""

UnconditionalText = Literal["learned", "empty-prompt"]
"""What stands for "no text" in guidance and for dropped captions: a learned state, or the states of an empty prompt."""

_POSITIVE = (attrs.validators.instance_of(int), attrs.validators.gt(0))
_OVERLONG = attrs.validators.in_(("error", "truncate"))


def _ngram_sizes(_instance: Any, _attribute: Any, value: tuple[int, ...]) -> None:
    if any(not isinstance(size, int) or size < 2 for size in value) or len(set(value)) != len(value):
        raise ConfigurationError(f"Expected ngram_sizes to be different whole numbers from 2, found {list(value)}.")


def _supported_dtype(_instance: Any, _attribute: Any, value: str) -> None:
    if value == "float16":
        raise ConfigurationError(
            "Expected dtype 'float32' or 'bfloat16' for a text encoder, found 'float16': its activations exceed the "
            "range of half precision in encoders such as T5, and become infinite. Use 'bfloat16' where memory is short."
        )
    if value not in ("float32", "bfloat16"):
        raise ConfigurationError(f"Expected dtype 'float32' or 'bfloat16' for a text encoder, found {value!r}.")


def _named(_instance: Any, _attribute: Any, value: str) -> None:
    if not value.strip():
        raise ConfigurationError(
            "Expected path to be a folder with a text encoder and its tokenizer, or a model id of a hub such as "
            "'google/t5-v1_1-small', found an empty string."
        )


def _from_the_end(_instance: Any, _attribute: Any, value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value > -1:
        raise ConfigurationError(
            f"Expected layer to be counted from the end: -1 for the last one, -2 the one before; found {value!r}."
        )


_PATH = [attrs.validators.instance_of(str), _named]
_SOME_TOKENS = [attrs.validators.instance_of(int), attrs.validators.ge(2)]

DEFAULT_MAX_LENGTH = 128
"""Longest prompt of a pretrained encoder, in its own tokens, where the options name no other (paper, section 3)."""


@attrs.frozen(kw_only=True)
class ByteEncoderOptions:
    """Options of `bytes`: UTF-8 bytes embedded by learned tables that train with the model.

    `width` is the length of a state. `max_length` counts bytes and the two marks around them. `ngram_sizes` are the
    lengths, in bytes, of the n-grams that each state also tells; an empty list leaves single bytes. They share a table
    of `num_ngram_buckets` vectors. With `merge_words` there is one state per word instead of one per byte, which
    makes the text several times shorter for everything that reads it.
    """

    width: int = attrs.field(default=128, validator=_POSITIVE)
    max_length: int = attrs.field(default=128, validator=[attrs.validators.instance_of(int), attrs.validators.ge(3)])
    ngram_sizes: tuple[int, ...] = attrs.field(default=(2, 3, 4, 5, 6, 8), validator=_ngram_sizes)
    num_ngram_buckets: int = attrs.field(
        default=4096, validator=[attrs.validators.instance_of(int), attrs.validators.ge(2)]
    )
    merge_words: bool = attrs.field(default=False, validator=attrs.validators.instance_of(bool))
    overlong: Overlong = attrs.field(default="error", validator=_OVERLONG)


@attrs.frozen(kw_only=True)
class T5EncoderOptions:
    """Options of `t5`: a frozen T5 encoder, as in the paper (T5-XXL).

    `path` is a local folder or a model id of the Hugging Face hub, `revision` a branch, tag or commit there. A saved
    model names a local folder by its absolute path, and holds no copy of it.
    `max_length` counts T5's own tokens with the end mark; what `overlong` says happens to longer prompts. `dtype` is
    that of the weights, `float32` or `bfloat16`. Raises `ConfigurationError` for `float16`, in which T5 overflows.
    """

    path: str = attrs.field(validator=_PATH)
    max_length: int = attrs.field(default=DEFAULT_MAX_LENGTH, validator=_SOME_TOKENS)
    dtype: str = attrs.field(default="float32", validator=_supported_dtype)
    revision: str | None = None
    overlong: Overlong = attrs.field(default="truncate", validator=_OVERLONG)


@attrs.frozen(kw_only=True)
class TransformersEncoderOptions:
    """Options of `transformers-encoder`: any frozen text model of transformers that gives a state for every token.

    `path`, `revision`, `dtype` and `overlong` are those of `T5EncoderOptions`. `max_length` counts the encoder's own
    tokens with the marks it adds; None is 128, or what the model takes at most if that is less (77 for CLIP). `layer`
    says whose states are used, counted from the end: -1 is the last layer as the model returns it, and -2 the layer
    before it, whose states no final normalisation has seen.
    """

    path: str = attrs.field(validator=_PATH)
    max_length: int | None = attrs.field(default=None, validator=attrs.validators.optional(_SOME_TOKENS))
    layer: int = attrs.field(default=-1, validator=_from_the_end)
    dtype: str = attrs.field(default="float32", validator=_supported_dtype)
    revision: str | None = None
    overlong: Overlong = attrs.field(default="truncate", validator=_OVERLONG)
