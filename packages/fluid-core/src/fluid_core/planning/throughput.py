"""How fast a training goes on given GPUs, at a stated utilisation."""

import attrs

from fluid_core.planning.gpus import GpuModel
from fluid_core.planning.training_flops import TrainingFlops

_BYTES_PER_UPDATED_WEIGHT = 52
"""Read and written for each weight after its gradient is there: norm and clipping 12, AdamW 28, moving average 12."""

_SECONDS_PER_DAY = 86_400


@attrs.frozen(kw_only=True)
class Throughput:
    """Rates of all GPUs together, and how long the whole takes."""

    utilisation: float
    """Share of the GPUs' peak in `precision` that the model's own FLOPs reach (MFU): an assumption."""

    largest_utilisation: float
    """What it could reach at best, since heads compute in float32: everything else at its peak."""

    largest_utilisation_with_tensorfloat32: float
    """The same with `torch.set_float32_matmul_precision("high")`."""

    images_per_second: float
    tokens_per_second: float
    seconds_per_step: float
    optimizer_seconds_per_step: float
    """Of these, what the update of the weights takes at least: the memory's bandwidth."""

    days: float


def estimate_throughput(
    flops: TrainingFlops,
    gpu: GpuModel,
    *,
    num_gpus: int,
    utilisation: float,
    precision: str,
    batch_size: int,
    tokens_per_image: int,
    num_images: int,
    weights_per_gpu: float,
) -> Throughput:
    """Rates for `num_images` in all; `weights_per_gpu` are those that each GPU updates."""
    peak = gpu.bfloat16_flops if precision == "bfloat16" else gpu.float32_flops
    images_per_second = num_gpus * peak * utilisation / flops.training
    return Throughput(
        utilisation=utilisation,
        largest_utilisation=_largest(flops, peak, gpu.float32_flops),
        largest_utilisation_with_tensorfloat32=_largest(flops, peak, gpu.tensorfloat32_flops),
        images_per_second=images_per_second,
        tokens_per_second=images_per_second * tokens_per_image,
        seconds_per_step=batch_size / images_per_second,
        optimizer_seconds_per_step=weights_per_gpu * _BYTES_PER_UPDATED_WEIGHT / gpu.bandwidth,
        days=num_images / images_per_second / _SECONDS_PER_DAY,
    )


def _largest(flops: TrainingFlops, peak: float, peak_of_head: float) -> float:
    head = flops.head / flops.forward
    return 1.0 / ((1.0 - head) + head * max(1.0, peak / peak_of_head))
