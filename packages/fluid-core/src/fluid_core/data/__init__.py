"""Pictures with captions to train on: a folder of one's own, or scenes of shapes drawn on the fly.

Names load on first use, so that reading options (`fluid_core.data.options`) never imports torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

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

_MODULE_OF = {
    "CaptionedImage": "captioned_images",
    "CaptionedImages": "captioned_images",
    "JudgedPrompt": "captioned_images",
    "JudgedPrompts": "captioned_images",
    "Verdict": "captioned_images",
    "ImageFolderDataset": "image_folder",
    "ImageFolderOptions": "options",
    "ShapesOptions": "options",
    "ShapesDataset": "shapes.dataset",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
