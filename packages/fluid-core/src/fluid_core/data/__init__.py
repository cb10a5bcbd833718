"""Pictures with captions to train on: a folder of one's own, or scenes of shapes drawn on the fly.

Names load on first use, so that reading options (`fluid_core.data.options`) never imports torch.
"""

from typing import TYPE_CHECKING

from fluid_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from fluid_core.data.captioned_images import (
        CaptionedImage,
        CaptionedImages,
        JudgedPrompt,
        JudgedPrompts,
        Verdict,
    )
    from fluid_core.data.image_folder import ImageFolderDataset
    from fluid_core.data.options import ImageFolderOptions, ShapesOptions
    from fluid_core.data.shapes.dataset import ShapesDataset

_HOMES = {
    "CaptionedImage": "fluid_core.data.captioned_images",
    "CaptionedImages": "fluid_core.data.captioned_images",
    "JudgedPrompt": "fluid_core.data.captioned_images",
    "JudgedPrompts": "fluid_core.data.captioned_images",
    "Verdict": "fluid_core.data.captioned_images",
    "ImageFolderDataset": "fluid_core.data.image_folder",
    "ImageFolderOptions": "fluid_core.data.options",
    "ShapesOptions": "fluid_core.data.options",
    "ShapesDataset": "fluid_core.data.shapes.dataset",
}

__all__ = [
    "CaptionedImage",
    "CaptionedImages",
    "ImageFolderDataset",
    "ImageFolderOptions",
    "JudgedPrompt",
    "JudgedPrompts",
    "ShapesDataset",
    "ShapesOptions",
    "Verdict",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
