"""What this package offers to the catalog. The modules with torch load when a component is built."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluid_core.components import TokenizerComponent
from fluid_core.hookspecs import hookimpl
from fluid_tokenizers.options import (
    KLAutoencoderOptions,
    PatchCodebookOptions,
    PixelPatchesOptions,
    VQAutoencoderOptions,
)

if TYPE_CHECKING:
    from fluid_tokenizers.kl_autoencoder import KLAutoencoder
    from fluid_tokenizers.patch_codebook import PatchCodebook
    from fluid_tokenizers.pixel_patches import PixelPatches
    from fluid_tokenizers.vq_autoencoder import VQAutoencoder


def _build_pixel_patches(options: PixelPatchesOptions) -> "PixelPatches":
    from fluid_tokenizers.pixel_patches import PixelPatches

    return PixelPatches(options)


def _build_patch_codebook(options: PatchCodebookOptions) -> "PatchCodebook":
    from fluid_tokenizers.patch_codebook import PatchCodebook

    return PatchCodebook(options)


def _build_kl_autoencoder(options: KLAutoencoderOptions) -> "KLAutoencoder":
    from fluid_tokenizers.kl_autoencoder import KLAutoencoder

    return KLAutoencoder(options)


def _build_vq_autoencoder(options: VQAutoencoderOptions) -> "VQAutoencoder":
    from fluid_tokenizers.vq_autoencoder import VQAutoencoder

    return VQAutoencoder(options)


def _example_kl_options(folder: Path) -> KLAutoencoderOptions:
    from fluid_tokenizers.autoencoder_examples import example_kl_options

    return example_kl_options(folder)


def _example_vq_options(folder: Path) -> VQAutoencoderOptions:
    from fluid_tokenizers.autoencoder_examples import example_vq_options

    return example_vq_options(folder)


def _kl_outline(options: KLAutoencoderOptions) -> Any:
    from fluid_tokenizers.autoencoder_outlines import kl_outline

    return kl_outline(options)


def _vq_outline(options: VQAutoencoderOptions) -> Any:
    from fluid_tokenizers.autoencoder_outlines import vq_outline

    return vq_outline(options)


@hookimpl
def fluid_register_tokenizers() -> tuple[TokenizerComponent, ...]:
    """Patches of pixels with and without quantisation, and autoencoders from diffusers with and without a codebook."""
    return (
        TokenizerComponent(
            name="pixel-patches",
            summary="Patches of pixels as continuous tokens, normalised by statistics measured on the data",
            options=PixelPatchesOptions,
            build=_build_pixel_patches,
            produces="continuous",
        ),
        TokenizerComponent(
            name="patch-codebook",
            summary="Patches of pixels as ids of a codebook fitted on the data by k-means",
            options=PatchCodebookOptions,
            build=_build_patch_codebook,
            produces="discrete",
        ),
        TokenizerComponent(
            name="kl-autoencoder",
            summary="Latents of a diffusers AutoencoderKL, AutoencoderTiny or AutoencoderDC as continuous tokens",
            options=KLAutoencoderOptions,
            build=_build_kl_autoencoder,
            example=_example_kl_options,
            outline=_kl_outline,
            produces="continuous",
        ),
        TokenizerComponent(
            name="vq-autoencoder",
            summary="Codewords of a diffusers VQModel (VQGAN) as ids",
            options=VQAutoencoderOptions,
            build=_build_vq_autoencoder,
            example=_example_vq_options,
            outline=_vq_outline,
            produces="discrete",
        ),
    )
