"""What a cache holds, and how it is built. No torch here: command lines and configuration files read these classes."""

from typing import Literal

import attrs
from attrs.validators import gt, in_, instance_of

MomentsType = Literal["float32", "bfloat16", "float16"]
TextType = Literal["float32", "bfloat16"]


@attrs.frozen(kw_only=True)
class CacheBuildOptions:
    """How a cache is built. Raises `ValueError` for values out of range."""

    both_flips: bool = attrs.field(default=False, validator=instance_of(bool))
    """Also encode the mirror image of every image. Text states are kept once for both."""

    dtype: MomentsType = attrs.field(default="float32", validator=in_(("float32", "bfloat16", "float16")))
    """Type of stored moments. With `float32` nothing is lost; ids are whole numbers whatever this says."""

    text: bool = attrs.field(default=True, validator=instance_of(bool))
    """Keep the states of a frozen text encoder. Without them training encodes the captions itself."""

    text_dtype: TextType = attrs.field(default="float32", validator=in_(("float32", "bfloat16")))
    """Type of stored text states. `bfloat16` loses nothing if the encoder itself computes in it."""

    batch_size: int = attrs.field(default=32, validator=[instance_of(int), gt(0)])
    """Images encoded at once."""

    shard_megabytes: float = attrs.field(default=256.0, validator=gt(0.0))
    """About how large a shard is, in millions of bytes: this much work is lost at most if the build is killed."""
