"""Small implementations of every protocol: read them to learn what a part must do.

They need core alone, train and sample in milliseconds, and pass the conformance suites. Nothing here is meant to
make good pictures.
"""

from fluid_core.testing.tiny.dataset import TinyFlags, TinyFlagStream
from fluid_core.testing.tiny.heads import TinyCategoricalHead, TinyGaussianHead
from fluid_core.testing.tiny.model import tiny_model
from fluid_core.testing.tiny.orders import (
    TinyCausalAnyOrder,
    TinyRandomOrder,
    TinyRasterOrder,
    TinySurestFirstOrder,
)
from fluid_core.testing.tiny.text_encoder import TinyTextEncoder
from fluid_core.testing.tiny.tokenizers import TinyColourCodes, TinyMeanColours

__all__ = [
    "TinyCategoricalHead",
    "TinyCausalAnyOrder",
    "TinyColourCodes",
    "TinyFlagStream",
    "TinyFlags",
    "TinyGaussianHead",
    "TinyMeanColours",
    "TinyRandomOrder",
    "TinyRasterOrder",
    "TinySurestFirstOrder",
    "TinyTextEncoder",
    "tiny_model",
]
