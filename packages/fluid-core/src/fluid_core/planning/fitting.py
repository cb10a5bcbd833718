"""What to change where a training does not fit into the memory of its GPUs."""

import attrs

from fluid_core.planning.gpus import GpuModel
from fluid_core.planning.memory import MemoryModel, MemoryUse, Sharding
from fluid_core.training.step.activation_checkpointing import ActivationCheckpointing

_SHARDINGS: tuple[Sharding, ...] = ("none", "hybrid", "full")
_CHECKPOINTINGS: tuple[ActivationCheckpointing, ...] = ("none", "selective", "full")


@attrs.frozen(kw_only=True)
class FittingSettings:
    """Settings under which a training fits, and what it then takes."""

    sharding: Sharding
    activation_checkpointing: ActivationCheckpointing
    accumulation_steps: int
    memory: MemoryUse


def fitting_settings(
    model: MemoryModel,
    gpu: GpuModel,
    *,
    num_gpus: int,
    shards_per_group: int,
    images_per_gpu: int,
    accumulation_steps: int,
    sharding: Sharding,
    checkpointing: ActivationCheckpointing,
) -> FittingSettings | None:
    """The nearest settings that fit, from those given; None if none do.

    Tried first is what costs least: sharding, within a node before over all, then smaller micro-batches, which leave
    the result as it is, then activation checkpointing, which computes more.
    """
    shardings = _SHARDINGS[_SHARDINGS.index(sharding) :] if num_gpus > 1 else (sharding,)
    if num_gpus <= shards_per_group and sharding != "hybrid":
        # In a single group hybrid sharding is full sharding.
        shardings = tuple(way for way in shardings if way != "hybrid")
    for kind in _CHECKPOINTINGS[_CHECKPOINTINGS.index(checkpointing) :]:
        micro_batch = model.micro_batch
        while True:
            for way in shardings:
                use = model.use(
                    way, kind, num_gpus=num_gpus, shards_per_group=shards_per_group, micro_batch=micro_batch
                )
                if use.fits(gpu):
                    return FittingSettings(
                        sharding=way,
                        activation_checkpointing=kind,
                        accumulation_steps=(
                            accumulation_steps
                            if micro_batch == model.micro_batch
                            else -(-images_per_gpu // micro_batch)
                        ),
                        memory=use,
                    )
            if micro_batch == 1:
                break
            micro_batch = -(-micro_batch // 2)
    return None
