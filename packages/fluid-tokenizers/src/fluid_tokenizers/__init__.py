"""Tokenizers for Fluid: images to tokens and back.

Importing this package is cheap: names load the modules behind them when they are first used.
"""

from typing import TYPE_CHECKING

from fluid_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from fluid_tokenizers.kl_autoencoder import KLAutoencoder
    from fluid_tokenizers.latent_statistics import LatentStatistics
    from fluid_tokenizers.options import (
        KLAutoencoderOptions,
        PatchCodebookOptions,
        PixelPatchesOptions,
        VQAutoencoderOptions,
    )
    from fluid_tokenizers.patch_codebook import PatchCodebook
    from fluid_tokenizers.patching import from_patches, to_patches
    from fluid_tokenizers.pixel_patches import PixelPatches
    from fluid_tokenizers.presets import PRESETS, AutoencoderPreset
    from fluid_tokenizers.vq_autoencoder import VQAutoencoder

__version__ = "0.1.0"

_HOMES = {
    "PRESETS": "fluid_tokenizers.presets",
    "AutoencoderPreset": "fluid_tokenizers.presets",
    "KLAutoencoder": "fluid_tokenizers.kl_autoencoder",
    "KLAutoencoderOptions": "fluid_tokenizers.options",
    "LatentStatistics": "fluid_tokenizers.latent_statistics",
    "PatchCodebook": "fluid_tokenizers.patch_codebook",
    "PatchCodebookOptions": "fluid_tokenizers.options",
    "PixelPatches": "fluid_tokenizers.pixel_patches",
    "PixelPatchesOptions": "fluid_tokenizers.options",
    "VQAutoencoder": "fluid_tokenizers.vq_autoencoder",
    "VQAutoencoderOptions": "fluid_tokenizers.options",
    "from_patches": "fluid_tokenizers.patching",
    "to_patches": "fluid_tokenizers.patching",
}

__all__ = [
    "PRESETS",
    "AutoencoderPreset",
    "KLAutoencoder",
    "KLAutoencoderOptions",
    "LatentStatistics",
    "PatchCodebook",
    "PatchCodebookOptions",
    "PixelPatches",
    "PixelPatchesOptions",
    "VQAutoencoder",
    "VQAutoencoderOptions",
    "from_patches",
    "to_patches",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
