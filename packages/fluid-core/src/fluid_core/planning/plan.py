"""The whole plan of a training, as values."""

import math
from typing import Any

import attrs

from fluid_core.catalog import ComponentCatalog
from fluid_core.configuration import FluidConfig
from fluid_core.errors import ConfigurationError
from fluid_core.exchange import AttentionPattern
from fluid_core.planning.activations import ActivationBytes, count_activations
from fluid_core.planning.cache_size import CacheSize, cache_size
from fluid_core.planning.fitting import FittingSettings, fitting_settings
from fluid_core.planning.gpus import GpuModel, find_gpu
from fluid_core.planning.memory import USABLE_SHARE, MemoryUse, Sharding, memory_model
from fluid_core.planning.paper_figures import (
    PAPER_CONTINUOUS_PARAMETERS,
    PAPER_DISCRETE_PARAMETERS,
    PAPER_FLOPS,
    PAPER_IMAGES,
)
from fluid_core.planning.parameter_counts import ParameterCounts, count_parameters
from fluid_core.planning.skeleton import Skeleton, build_skeleton
from fluid_core.planning.throughput import Throughput, estimate_throughput
from fluid_core.planning.training_flops import TrainingFlops, count_training_flops
from fluid_core.training.step.activation_checkpointing import ActivationCheckpointing


@attrs.frozen(kw_only=True)
class PlanRequest:
    """What a plan is made for, beside the configuration. Raises `ConfigurationError` for values out of range."""

    gpu: str = "h100"
    num_gpus: int = 1
    gpus_per_node: int = 8
    """GPUs that hold all weights together under hybrid sharding, unless `training.shards_per_group` says how many."""

    utilisation: float = 0.4
    """Share of the GPUs' peak that is assumed (MFU)."""

    num_images: int | None = None
    """Images trained on in all; None: `training.num_steps` batches."""

    num_dataset_images: int | None = None
    """Images of the data set, for the size of its cache; None: as many as are trained on."""

    text_length: int | None = None
    """Tokens of a caption; None: the longest that the text encoder takes."""

    def __attrs_post_init__(self) -> None:
        whole = {"gpus": self.num_gpus, "gpus-per-node": self.gpus_per_node}
        chosen = {"images": self.num_images, "dataset-images": self.num_dataset_images, "text-length": self.text_length}
        for name, value in {**whole, **chosen}.items():
            if value is not None and value < 1:
                raise ConfigurationError(f"Expected --{name} to be 1 or more, found {value}.")
        if not 0.0 < self.utilisation <= 1.0:
            raise ConfigurationError(
                f"Expected --mfu to be a share of the GPUs' peak, above 0 and at most 1, found {self.utilisation}."
            )


@attrs.frozen(kw_only=True)
class PaperComparison:
    """Figures of the paper beside one's own, for a configuration of a named size."""

    size: str
    parameters: float | None
    """Of the paper's model of that name, for tokens of this kind."""

    flops: float | None
    """Training computation of the paper's model; None unless this one is random-order and continuous, too."""

    own_flops: float
    """One's own over as many images as the paper trained on."""


@attrs.frozen(kw_only=True)
class Plan:
    """Everything that `fluid plan` tells. Sizes are in bytes."""

    parameters: ParameterCounts
    tokenizer_source: str
    text_encoder_source: str
    tokens_per_image: int
    flops: TrainingFlops
    num_images: int
    num_steps: int
    batch_size: int
    training_flops: float
    """Over all images."""

    paper: PaperComparison | None
    gpu: GpuModel
    num_gpus: int
    usable_memory: int
    """Of one GPU, in bytes."""

    precision: str
    sharding: Sharding
    """What the configuration says."""

    activation_checkpointing: ActivationCheckpointing
    accumulation_steps: int
    micro_batch: int
    activations: ActivationBytes
    memory: tuple[MemoryUse, ...]
    """Under every sharding that makes a difference, with the configured activation checkpointing."""

    fits: bool
    """Whether the configuration as it is does."""

    remedy: FittingSettings | None
    """Settings that fit, if the configured ones do not; None if none were found."""

    throughput: Throughput
    cache: CacheSize

    def as_json(self) -> dict[str, Any]:
        """Plain values, with what follows from them."""
        data = attrs.asdict(self)
        data["parameters"].update(trained=self.parameters.trained, as_named=self.parameters.as_named)
        for row, use in zip(data["memory"], self.memory, strict=True):
            row.update(total=use.total, fits=use.fits(self.gpu))
        if self.remedy is not None:
            data["remedy"]["memory"]["total"] = self.remedy.memory.total
        return data


def make_plan(config: FluidConfig, request: PlanRequest, catalog: ComponentCatalog | None = None) -> Plan:
    """The plan of a training. Nothing is downloaded, and no weights are loaded that the model trains.

    Raises `ConfigurationError` for a configuration without [training], for a batch smaller than the number of GPUs, a
    GPU that is not known and a caption longer than the text encoder takes, and what `build_skeleton` raises.
    """
    gpu = find_gpu(request.gpu)
    training = config.training
    if training is None:
        raise ConfigurationError(
            "Expected a [training] section with num_steps and batch_size to plan for, found none. Add it, or give both "
            "as training.num_steps=1000000 training.batch_size=2048."
        )
    num_gpus = request.num_gpus
    if training.batch_size < num_gpus:
        raise ConfigurationError(
            f"Expected training.batch_size to be at least the number of GPUs, found {training.batch_size} images for "
            f"{num_gpus}. Enlarge it, or plan for fewer GPUs."
        )
    skeleton = build_skeleton(config, catalog)
    text_length = _text_length(request, skeleton)
    precision = "bfloat16" if training.precision == "auto" else training.precision
    counts = count_parameters(skeleton)
    flops = count_training_flops(skeleton, text_length)
    images_per_gpu = math.ceil(training.batch_size / num_gpus)
    micro_batch = math.ceil(images_per_gpu / training.accumulation_steps)
    activations = count_activations(skeleton, num_images=micro_batch, text_length=text_length, precision=precision)
    model = memory_model(skeleton, counts, activations, micro_batch=micro_batch)
    sharding: Sharding = training.sharding if num_gpus > 1 else "none"
    checkpointing = training.activation_checkpointing
    shards_per_group = training.shards_per_group or request.gpus_per_node
    division = {"num_gpus": num_gpus, "shards_per_group": shards_per_group}
    used = model.use(sharding, checkpointing, **division)
    fits = used.fits(gpu)
    num_images = request.num_images or training.num_steps * training.batch_size
    remedy = None
    if not fits:
        remedy = fitting_settings(
            model,
            gpu,
            **division,
            images_per_gpu=images_per_gpu,
            accumulation_steps=training.accumulation_steps,
            sharding=sharding,
            checkpointing=checkpointing,
        )
    return Plan(
        parameters=counts,
        tokenizer_source=skeleton.tokenizer.source,
        text_encoder_source="trained with the model" if skeleton.text is None else skeleton.text.source,
        tokens_per_image=skeleton.length,
        flops=flops,
        num_images=num_images,
        num_steps=math.ceil(num_images / training.batch_size),
        batch_size=training.batch_size,
        training_flops=flops.training * num_images,
        paper=_paper(config, skeleton, flops),
        gpu=gpu,
        num_gpus=num_gpus,
        usable_memory=round(USABLE_SHARE * gpu.memory_bytes),
        precision=precision,
        sharding=sharding,
        activation_checkpointing=checkpointing,
        accumulation_steps=training.accumulation_steps,
        micro_batch=micro_batch,
        activations=activations,
        memory=tuple(
            model.use(kind, checkpointing, **division) for kind in _shardings(num_gpus, shards_per_group, sharding)
        ),
        fits=fits,
        remedy=remedy,
        throughput=estimate_throughput(
            flops,
            gpu,
            num_gpus=num_gpus,
            utilisation=request.utilisation,
            precision=precision,
            batch_size=training.batch_size,
            tokens_per_image=skeleton.length,
            num_images=num_images,
            weights_per_gpu=counts.trained / (used if remedy is None else remedy.memory).num_shards,
        ),
        cache=cache_size(
            skeleton.tokenizer,
            skeleton.text,
            num_images=request.num_dataset_images or num_images,
            text_length=text_length,
        ),
    )


def _text_length(request: PlanRequest, skeleton: Skeleton) -> int:
    longest = skeleton.max_text_length
    if request.text_length is not None and request.text_length > longest:
        raise ConfigurationError(
            f"Expected captions of at most {longest} tokens, which is what the text encoder takes, found "
            f"--text-length {request.text_length}."
        )
    return request.text_length or longest


def _shardings(num_gpus: int, shards_per_group: int, chosen: Sharding) -> tuple[Sharding, ...]:
    """Those that differ from each other, and the chosen one."""
    if num_gpus == 1:
        return ("none",)
    return ("none", "full") if num_gpus <= shards_per_group and chosen != "hybrid" else ("none", "hybrid", "full")


def _paper(config: FluidConfig, skeleton: Skeleton, flops: TrainingFlops) -> PaperComparison | None:
    size = config.backbone.size
    if size is None or size not in PAPER_CONTINUOUS_PARAMETERS:
        return None
    continuous = skeleton.tokenizer.token_space.kind == "continuous"
    known = PAPER_CONTINUOUS_PARAMETERS if continuous else PAPER_DISCRETE_PARAMETERS
    as_in_figure = continuous and skeleton.model.order.attention is AttentionPattern.BIDIRECTIONAL
    return PaperComparison(
        size=size,
        parameters=known.get(size),
        flops=PAPER_FLOPS.get(size) if as_in_figure else None,
        own_flops=flops.training * PAPER_IMAGES,
    )
