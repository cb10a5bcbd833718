"""What this package offers to the catalog. The modules with torch load when a component is built."""

from typing import TYPE_CHECKING

from fluid_core.components import TokenizerComponent
from fluid_core.hookspecs import hookimpl
from fluid_tokenizers.options import PatchCodebookOptions, PixelPatchesOptions

if TYPE_CHECKING:
    from fluid_tokenizers.patch_codebook import PatchCodebook
    from fluid_tokenizers.pixel_patches import PixelPatches


def _build_pixel_patches(options: PixelPatchesOptions) -> "PixelPatches":
    from fluid_tokenizers.pixel_patches import PixelPatches

    return PixelPatches(options)


def _build_patch_codebook(options: PatchCodebookOptions) -> "PatchCodebook":
    from fluid_tokenizers.patch_codebook import PatchCodebook

    return PatchCodebook(options)


@hookimpl
def fluid_register_tokenizers() -> tuple[TokenizerComponent, ...]:
    """Tokenizers without pretrained weights: the same patches with and without quantisation."""
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
    )
