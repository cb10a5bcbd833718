"""Pictures with captions to train on: folders, tar shards and Hugging Face datasets, or scenes drawn on the fly.

Names load on first use, so that reading options (`fluid_core.data.options`) never imports torch.
"""

from typing import TYPE_CHECKING

from fluid_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from fluid_core.data.captioned_images import (
        CaptionedImage,
        CaptionedImages,
        CaptionedStream,
        EpochVariants,
        JudgedPrompt,
        JudgedPrompts,
        StreamSample,
        Verdict,
    )
    from fluid_core.data.image_folder import ImageFolderDataset
    from fluid_core.data.options import (
        HuggingFaceDatasetOptions,
        ImageFolderOptions,
        ShapesOptions,
        WebDatasetOptions,
    )
    from fluid_core.data.shapes.dataset import ShapesDataset

_HOMES = {
    "CaptionedImage": "fluid_core.data.captioned_images",
    "CaptionedImages": "fluid_core.data.captioned_images",
    "CaptionedStream": "fluid_core.data.captioned_images",
    "EpochVariants": "fluid_core.data.captioned_images",
    "StreamSample": "fluid_core.data.captioned_images",
    "JudgedPrompt": "fluid_core.data.captioned_images",
    "JudgedPrompts": "fluid_core.data.captioned_images",
    "Verdict": "fluid_core.data.captioned_images",
    "ImageFolderDataset": "fluid_core.data.image_folder",
    "HuggingFaceDatasetOptions": "fluid_core.data.options",
    "ImageFolderOptions": "fluid_core.data.options",
    "WebDatasetOptions": "fluid_core.data.options",
    "ShapesOptions": "fluid_core.data.options",
    "ShapesDataset": "fluid_core.data.shapes.dataset",
}

__all__ = [
    "CaptionedImage",
    "CaptionedImages",
    "CaptionedStream",
    "EpochVariants",
    "HuggingFaceDatasetOptions",
    "ImageFolderDataset",
    "ImageFolderOptions",
    "JudgedPrompt",
    "JudgedPrompts",
    "ShapesDataset",
    "ShapesOptions",
    "StreamSample",
    "Verdict",
    "WebDatasetOptions",
]


__getattr__, __dir__ = lazy_names(__name__, _HOMES)
