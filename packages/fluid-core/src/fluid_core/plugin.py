"""Fluid's own plugin: the text encoders, data sets and feature networks of `fluid-core`, found like anybody else's."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fluid_core.components import DatasetComponent, FeatureNetworkComponent, TextEncoderComponent
from fluid_core.data.options import (
    HuggingFaceDatasetOptions,
    ImageFolderOptions,
    MixtureOptions,
    MixturePart,
    ShapesOptions,
    TokenCacheOptions,
    WebDatasetOptions,
)
from fluid_core.evaluation.feature_networks.options import (
    EfficientNetLite0Options,
    RandomConvolutionsOptions,
    TorchScriptOptions,
)
from fluid_core.hookspecs import hookimpl
from fluid_core.text.options import ByteEncoderOptions, T5EncoderOptions, TransformersEncoderOptions

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


def _t5_outline(options: T5EncoderOptions) -> Any:
    from fluid_core.text.encoder_outlines import t5_outline

    return t5_outline(options)


def _build_transformers_encoder(options: TransformersEncoderOptions) -> Any:
    from fluid_core.text.transformers_encoder import build_transformers_encoder

    return build_transformers_encoder(options)


def _example_transformers_options(folder: Path) -> TransformersEncoderOptions:
    from fluid_core.text.transformers_encoder import example_transformers_options

    return example_transformers_options(folder)


def _transformers_outline(options: TransformersEncoderOptions) -> Any:
    from fluid_core.text.encoder_outlines import transformers_outline

    return transformers_outline(options)


def _build_shapes(options: ShapesOptions, context: "DatasetContext") -> Any:
    from fluid_core.data.shapes.dataset import build_shapes

    return build_shapes(options, context)


def _build_image_folder(options: ImageFolderOptions, context: "DatasetContext") -> Any:
    from fluid_core.data.image_folder import build_image_folder

    return build_image_folder(options, context)


def _example_image_folder_options(folder: Path) -> ImageFolderOptions:
    from fluid_core.data.image_folder import example_image_folder_options

    return example_image_folder_options(folder)


def _build_token_cache(options: TokenCacheOptions, context: "DatasetContext") -> Any:
    from fluid_core.data.token_cache.dataset import build_token_cache

    return build_token_cache(options, context)


def _example_token_cache_options(folder: Path) -> TokenCacheOptions:
    from fluid_core.data.token_cache.example import example_token_cache_options

    return example_token_cache_options(folder)


def _build_webdataset(options: WebDatasetOptions, context: "DatasetContext") -> Any:
    from fluid_core.data.webdataset import build_webdataset

    return build_webdataset(options, context)


def _example_webdataset_options(folder: Path) -> WebDatasetOptions:
    from fluid_core.data.webdataset import example_webdataset_options

    return example_webdataset_options(folder)


def _build_hugging_face_dataset(options: HuggingFaceDatasetOptions, context: "DatasetContext") -> Any:
    from fluid_core.data.hugging_face import build_hugging_face_dataset

    return build_hugging_face_dataset(options, context)


def _example_hugging_face_options(folder: Path) -> HuggingFaceDatasetOptions:
    from fluid_core.data.hugging_face import example_hugging_face_options

    return example_hugging_face_options(folder)


def _build_efficientnet_lite0(options: EfficientNetLite0Options) -> Any:
    from fluid_core.evaluation.feature_networks.efficientnet_lite0 import build_efficientnet_lite0

    return build_efficientnet_lite0(options)


def _build_torchscript_network(options: TorchScriptOptions) -> Any:
    from fluid_core.evaluation.feature_networks.torchscript import build_torchscript_network

    return build_torchscript_network(options)


def _example_torchscript_options(folder: Path) -> TorchScriptOptions:
    from fluid_core.evaluation.feature_networks.torchscript import example_torchscript_options

    return example_torchscript_options(folder)


def _build_random_convolutions(options: RandomConvolutionsOptions) -> Any:
    from fluid_core.evaluation.feature_networks.random_convolutions import build_random_convolutions

    return build_random_convolutions(options)


@hookimpl
def fluid_register_text_encoders() -> tuple[TextEncoderComponent, ...]:
    """The byte-level encoder, T5, and any text model of transformers."""
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
            outline=_t5_outline,
        ),
        TextEncoderComponent(
            name="transformers-encoder",
            summary="A frozen text model of transformers: BERT, MiniLM, CLIP, ModernBERT and others",
            options=TransformersEncoderOptions,
            build=_build_transformers_encoder,
            example=_example_transformers_options,
            outline=_transformers_outline,
        ),
    )


def _build_mixture(options: MixtureOptions, context: "DatasetContext") -> Any:
    from fluid_core.data.mixture import build_mixture

    return build_mixture(options, context)


def _example_mixture_options(_folder: Path) -> MixtureOptions:
    few = {"num_examples": 9, "num_validation_examples": 5}
    parts = (MixturePart(name="shapes", options=few), MixturePart(name="shapes", options={"max_objects": 2, **few}))
    return MixtureOptions(parts=parts)


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
        DatasetComponent(
            name="webdataset",
            summary="Shards of pictures and captions in tar files, as img2dataset writes them; read as a stream",
            options=WebDatasetOptions,
            build=_build_webdataset,
            example=_example_webdataset_options,
        ),
        DatasetComponent(
            name="hf-dataset",
            summary="A data set of the Hugging Face Hub or local Parquet, Arrow and JSON files; on disk or streamed",
            options=HuggingFaceDatasetOptions,
            build=_build_hugging_face_dataset,
            example=_example_hugging_face_options,
        ),
        DatasetComponent(
            name="mixture",
            summary="Several data sets with random access, evenly mixed in fixed shares",
            options=MixtureOptions,
            build=_build_mixture,
            example=_example_mixture_options,
        ),
        DatasetComponent(
            name="token-cache",
            summary="Tokens and text states computed beforehand by `fluid cache build`",
            options=TokenCacheOptions,
            build=_build_token_cache,
            example=_example_token_cache_options,
            encoded=True,
        ),
    )


@hookimpl
def fluid_register_feature_networks() -> tuple[FeatureNetworkComponent, ...]:
    """One with real weights, one that the user brings, and one that needs nothing."""
    return (
        FeatureNetworkComponent(
            name="efficientnet-lite0",
            summary="EfficientNet-Lite0 trained on ImageNet; weights from an installable package",
            options=EfficientNetLite0Options,
            build=_build_efficientnet_lite0,
        ),
        FeatureNetworkComponent(
            name="torchscript",
            summary="A network of your own in a TorchScript file, such as an Inception",
            options=TorchScriptOptions,
            build=_build_torchscript_network,
            example=_example_torchscript_options,
        ),
        FeatureNetworkComponent(
            name="random-convolutions",
            summary="Untrained convolutions with fixed weights: for tests, and where nothing else is at hand",
            options=RandomConvolutionsOptions,
            build=_build_random_convolutions,
        ),
    )
