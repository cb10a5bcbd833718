"""Text encoders: prompts to the states that the backbone attends to.

Importing this package is cheap: names load the modules behind them when they are first used.
"""

from typing import TYPE_CHECKING

from fluid_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from fluid_core.text.byte_encoder import ByteEncoder, build_byte_encoder
    from fluid_core.text.options import ByteEncoderOptions, T5EncoderOptions, TransformersEncoderOptions
    from fluid_core.text.t5_encoder import T5Encoder, build_t5_encoder, example_t5_options
    from fluid_core.text.transformers_encoder import (
        TransformersEncoder,
        build_transformers_encoder,
        example_transformers_options,
    )

_HOMES = {
    "ByteEncoder": "fluid_core.text.byte_encoder",
    "ByteEncoderOptions": "fluid_core.text.options",
    "T5Encoder": "fluid_core.text.t5_encoder",
    "T5EncoderOptions": "fluid_core.text.options",
    "TransformersEncoder": "fluid_core.text.transformers_encoder",
    "TransformersEncoderOptions": "fluid_core.text.options",
    "build_byte_encoder": "fluid_core.text.byte_encoder",
    "build_t5_encoder": "fluid_core.text.t5_encoder",
    "build_transformers_encoder": "fluid_core.text.transformers_encoder",
    "example_t5_options": "fluid_core.text.t5_encoder",
    "example_transformers_options": "fluid_core.text.transformers_encoder",
}

__all__ = [
    "ByteEncoder",
    "ByteEncoderOptions",
    "T5Encoder",
    "T5EncoderOptions",
    "TransformersEncoder",
    "TransformersEncoderOptions",
    "build_byte_encoder",
    "build_t5_encoder",
    "build_transformers_encoder",
    "example_t5_options",
    "example_transformers_options",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
