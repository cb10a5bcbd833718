"""From a configuration to a cache of its training data, made by the very parts that training would use."""

from pathlib import Path
from typing import Any

import attrs
import torch
from torch import nn

from fluid_core.assembly import build_dataset
from fluid_core.building import component_options
from fluid_core.catalog import ComponentCatalog, installed_components
from fluid_core.compatibility import check_configuration
from fluid_core.configuration import ComponentChoice, FluidConfig, TrainingConfig
from fluid_core.configuration.structuring import unstructure
from fluid_core.data.captioned_images import CaptionedImages, CaptionedStream
from fluid_core.data.skipped_items import SkippedItems
from fluid_core.data.token_cache.builder import CacheBuilder, CacheContents
from fluid_core.data.token_cache.encoding import CacheEncoder
from fluid_core.data.token_cache.manifest import CachedSource
from fluid_core.data.token_cache.mirrored import WithMirrorImages
from fluid_core.data.token_cache.options import CacheBuildOptions
from fluid_core.data.token_cache.parts import NamedPart, load_learned_state
from fluid_core.data.token_cache.progress import CacheProgress
from fluid_core.data.token_cache.source import Source
from fluid_core.data.token_cache.stored_types import type_of
from fluid_core.errors import ConfigurationError
from fluid_core.exchange import DatasetContext
from fluid_core.protocols import LearnsFromImages, TextEncoder, Tokenizer
from fluid_core.training.devices import training_device
from fluid_core.training.sight.progress import TrainingProgress
from fluid_core.training.tokenizers.fitting import fit_tokenizer


def cache_builder(
    config: FluidConfig,
    folder: str | Path,
    options: CacheBuildOptions | None = None,
    *,
    device: str = "auto",
    validation: bool | None = None,
    catalog: ComponentCatalog | None = None,
    progress: CacheProgress | None = None,
) -> CacheBuilder:
    """Everything a build needs, with tokenizer and text encoder at hand and a few images measured.

    Seed, fitting of the tokenizer and data are those of training with `config`, so that training from the cache is
    training from the images. `validation` says whether the validation split is cached as well; None: if the
    configuration measures a validation loss. Raises `ConfigurationError` for a configuration without data or training,
    and what building the parts and `CacheBuilder` raise.
    """
    options, progress = options or CacheBuildOptions(), progress or CacheProgress()
    catalog = catalog or installed_components()
    if config.training is None or config.data is None:
        raise ConfigurationError("Expected a [training] and a [data] section, found a configuration without.")
    check_configuration(config, catalog)
    training, target = config.training, training_device(device, setting="--device")
    source = _named(config.data, "dataset", catalog)
    if options.both_flips and source.options.get("horizontal_flip"):
        raise ConfigurationError(
            "Expected mirror images from one side, found them asked for twice: both flips in the cache, and "
            "data.options.horizontal_flip. Switch the latter off: a cache of both flips keeps each text once."
        )
    # The tokenizer is built first and from this seed in training too, so that fresh weights are the same.
    torch.manual_seed(training.seed)
    tokenizer = _tokenizer(config, catalog, target)
    text_encoder = _text_encoder(config, catalog, target) if options.text else None
    if text_encoder is not None and not text_encoder.frozen:
        progress.note(
            f"The text encoder '{config.text_encoder.name}' trains with the model: captions are kept, not its states."
        )
        text_encoder = None
    has_validation = training.num_validation_images > 0 if validation is None else validation
    datasets = {
        split: _dataset(config.data, DatasetContext(**_context(tokenizer, training, split)), catalog)
        for split in (("train", "validation") if has_validation else ("train",))
    }
    sources = tuple(Source(dataset, split) for split, dataset in datasets.items())
    if sources[0].varies:
        progress.note(
            "The data set draws crops, captions or flips anew in every epoch; the cache keeps what the first epoch "
            "shows. For mirror images use a data set without flips and --both-flips."
        )
    folder = Path(folder).expanduser()
    load_learned_state(tokenizer, folder)
    _fit(tokenizer, datasets["train"], training, options, target)
    contents = CacheContents(
        encoder=CacheEncoder(
            tokenizer=tokenizer,
            text_encoder=text_encoder,
            device=target,
            both_flips=options.both_flips,
            text_dtype=None if text_encoder is None else type_of(options.text_dtype),
        ),
        tokenizer=_named(config.tokenizer, "tokenizer", catalog).made_by(tokenizer),
        text_encoder=(
            None if text_encoder is None else _named(config.text_encoder, "text-encoder", catalog).made_by(text_encoder)
        ),
        sources=sources,
        source=CachedSource(**attrs.asdict(source), seed=training.seed),
        crop=str(source.options.get("crop", "as the data set makes them")),
    )
    skipped = SkippedItems(max_share=training.max_skipped_share)
    return CacheBuilder(folder, contents, options, progress=progress, skipped=skipped)


def _named(choice: ComponentChoice, kind: str, catalog: ComponentCatalog) -> NamedPart:
    """The choice with all its options, those that have their default as well."""
    installed = catalog.find(kind, choice.name)
    options: dict[str, Any] = unstructure(component_options(installed, choice.options))
    return NamedPart(name=choice.name, options=options, provided_by=installed.origin)


def _tokenizer(config: FluidConfig, catalog: ComponentCatalog, device: torch.device) -> Tokenizer:
    choice = config.tokenizer
    built = catalog.build("tokenizer", choice.name, choice.options, root="$.tokenizer.options")
    tokenizer: Tokenizer = _ready(built, device)
    return tokenizer


def _text_encoder(config: FluidConfig, catalog: ComponentCatalog, device: torch.device) -> TextEncoder:
    choice = config.text_encoder
    built = catalog.build("text-encoder", choice.name, choice.options, root="$.text_encoder.options")
    encoder: TextEncoder = _ready(built, device)
    return encoder


def _ready(part: Any, device: torch.device) -> Any:
    """The part on its device, in evaluation mode as the model keeps it."""
    assert isinstance(part, nn.Module)
    return part.to(device).eval().requires_grad_(False)


def _context(tokenizer: Tokenizer, training: TrainingConfig, split: str) -> dict[str, Any]:
    return {"image_size": tokenizer.image_size, "split": split, "seed": training.seed}


def _dataset(
    choice: ComponentChoice, context: DatasetContext, catalog: ComponentCatalog
) -> CaptionedImages | CaptionedStream:
    dataset = build_dataset(choice, context, catalog)
    assert isinstance(dataset, CaptionedImages | CaptionedStream)
    return dataset


def _fit(
    tokenizer: Tokenizer,
    dataset: CaptionedImages | CaptionedStream,
    training: TrainingConfig,
    options: CacheBuildOptions,
    device: torch.device,
) -> None:
    if not isinstance(tokenizer, LearnsFromImages) or tokenizer.fitted:
        return
    flips = options.both_flips and isinstance(dataset, CaptionedImages)
    data: Any = WithMirrorImages(dataset) if flips else dataset  # type: ignore[arg-type]
    fit_tokenizer(tokenizer, data, training, device=device, progress=TrainingProgress())
