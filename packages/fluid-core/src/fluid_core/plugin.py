"""Fluid's own plugin: the text encoders and data sets of `fluid-core`, found like anybody else's."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluid_core.components import DatasetComponent, TextEncoderComponent
from fluid_core.data.options import ImageFolderOptions, ShapesOptions
from fluid_core.hookspecs import hookimpl
from fluid_core.text.options import ByteEncoderOptions, T5EncoderOptions

# For annotations only, and as texts there: these need torch, and listing components must not load it.
if TYPE_CHECKING:
    from fluid_core.exchange import DatasetContext


def _build_byte_encoder(options: ByteEncoderOptions) -> Any:
    from fluid_core.text.byte_encoder import build_byte_encoder

    return build_byte_encoder(options)


def _build_t5_encoder(options: T5EncoderOptions) -> Any:
    from fluid_core.text.t5_encoder import build_t5_encoder

    return build_t5_encoder(options)


def _example_t5_options(folder: Path) -> T5EncoderOptions:
    from fluid_core.text.t5_encoder import example_t5_options

    return example_t5_options(folder)


def _build_shapes(options: ShapesOptions, context: "DatasetContext") -> Any:
    from fluid_core.data.shapes.dataset import build_shapes

    return build_shapes(options, context)


def _build_image_folder(options: ImageFolderOptions, context: "DatasetContext") -> Any:
    from fluid_core.data.image_folder import build_image_folder

    return build_image_folder(options, context)


def _example_image_folder_options(folder: Path) -> ImageFolderOptions:
    from fluid_core.data.image_folder import example_image_folder_options

    return example_image_folder_options(folder)


@hookimpl
def fluid_register_text_encoders() -> tuple[TextEncoderComponent, ...]:
    """The byte-level encoder, and T5."""
    return (
        TextEncoderComponent(
            name="bytes",
            summary="Bytes of the prompt, embedded; trained with the model, needs no weights",
            options=ByteEncoderOptions,
            build=_build_byte_encoder,
        ),
        TextEncoderComponent(
            name="t5",
            summary="A frozen T5 encoder through transformers, as in the paper",
            options=T5EncoderOptions,
            build=_build_t5_encoder,
            example=_example_t5_options,
        ),
    )


@hookimpl
def fluid_register_datasets() -> tuple[DatasetComponent, ...]:
    """Scenes of shapes, and a folder of one's own images."""
    return (
        DatasetComponent(
            name="shapes",
            summary="Captioned scenes of coloured shapes, drawn on the fly, with a judge",
            options=ShapesOptions,
            build=_build_shapes,
        ),
        DatasetComponent(
            name="image-folder",
            summary="A folder of images with captions in metadata.jsonl",
            options=ImageFolderOptions,
            build=_build_image_folder,
            example=_example_image_folder_options,
        ),
    )
