"""What is known of a tokenizer or a text encoder without its weights.

Components whose weights come from elsewhere say it by their declaration's `outline`, so that a plan needs no download
and no gigabytes of memory. Other components are built and looked at.
"""

import attrs
import torch

from fluid_core.token_space import TokenSpace


@attrs.frozen(kw_only=True)
class PrecomputedTensor:
    """One tensor that `Tokenizer.precompute` returns: what a cache on disk stores of an image."""

    name: str
    shape: tuple[int, ...]
    """Of one image, without the batch."""

    dtype: torch.dtype


@attrs.frozen(kw_only=True)
class TokenizerOutline:
    """A tokenizer as far as planning needs it."""

    token_space: TokenSpace
    image_size: tuple[int, int]
    precomputed: tuple[PrecomputedTensor, ...]
    num_parameters: int | None
    """None where they can not be counted."""

    bytes_per_parameter: int = 4
    source: str
    """Where these facts come from, in words."""


@attrs.frozen(kw_only=True)
class TextEncoderOutline:
    """A frozen text encoder as far as planning needs it; fields as those of `TokenizerOutline`."""

    width: int
    """Length of a state."""

    max_length: int
    num_parameters: int | None
    bytes_per_parameter: int = 4
    source: str
