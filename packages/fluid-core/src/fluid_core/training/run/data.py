"""The data of a run, and that it belongs to the model's tokenizer."""

from typing import TYPE_CHECKING

from fluid_core.assembly import build_dataset
from fluid_core.configuration import FluidConfig
from fluid_core.data.captioned_images import CaptionedImages, CaptionedStream
from fluid_core.data.encoded_images import EncodedImages
from fluid_core.exchange import DatasetContext
from fluid_core.model import FluidModel
from fluid_core.protocols import LearnsFromImages
from fluid_core.training.sight.progress import TrainingProgress
from fluid_core.training.tokenizers.fitting import fit_tokenizer

if TYPE_CHECKING:
    from fluid_core.catalog import ComponentCatalog

TrainingData = CaptionedImages | CaptionedStream | EncodedImages


def open_split(
    config: FluidConfig, split: str, *, image_size: tuple[int, int], catalog: "ComponentCatalog | None"
) -> TrainingData:
    """One split of the data set of a configuration with data and training, for images of `image_size`."""
    assert config.data is not None
    assert config.training is not None
    context = DatasetContext(image_size=image_size, split=split, seed=config.training.seed)
    dataset = build_dataset(config.data, context, catalog, may_be_encoded=True)
    assert isinstance(dataset, CaptionedImages | CaptionedStream | EncodedImages)
    return dataset


def connect_or_fit(
    model: FluidModel,
    train_data: TrainingData,
    validation_data: TrainingData | None,
    config: FluidConfig,
    *,
    progress: TrainingProgress,
) -> None:
    """See that tokenizer and data belong together: a cache knows its tokenizer, others learn from the images.

    A tokenizer that has learned already, in the run that is resumed or in the model that is built upon, learns no more.
    """
    tokenizer = model.tokenizer
    for data in (train_data, validation_data):
        if isinstance(data, EncodedImages):
            data.connect(tokenizer, model.text_encoder)
    if isinstance(train_data, EncodedImages):
        return
    assert config.training is not None
    if isinstance(tokenizer, LearnsFromImages) and not tokenizer.fitted:
        fit_tokenizer(tokenizer, train_data, config.training, device=model.device, progress=progress)
