"""The model of a run: whole in every process, or divided among them. What divides it is loaded only where needed."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fluid_core.assembly import build_model
from fluid_core.configuration import FluidConfig, TrainingConfig
from fluid_core.model import FluidModel
from fluid_core.saved_model import save_model
from fluid_core.training.devices import training_device
from fluid_core.training.processes import Processes
from fluid_core.training.step.moving_average import MovingAverage

if TYPE_CHECKING:
    from fluid_core.catalog import ComponentCatalog
    from fluid_core.training.sharding.fully_shard import Sharding


def open_sharding(processes: Processes, settings: TrainingConfig) -> "Sharding | None":
    """How weights are divided in this run; None if they are not. Raises `ConfigurationError` as `Sharding` does."""
    if settings.sharding == "none" or processes.count == 1:
        return None
    from fluid_core.training.sharding.fully_shard import Sharding

    return Sharding.among(
        processes,
        kind=settings.sharding,
        device=training_device(settings.device),
        shards_per_group=settings.shards_per_group,
    )


def build_run_model(
    config: FluidConfig, sharding: "Sharding | None", device: torch.device, catalog: "ComponentCatalog | None" = None
) -> FluidModel:
    """The model with fresh weights, the same however it is divided. Raises as `build_model` does."""
    if sharding is None:
        return build_model(config, catalog).to(device)
    from fluid_core.training.sharding.building import build_sharded_model

    return build_sharded_model(config, sharding, device, catalog)


def all_at_hand(model: FluidModel, sharding: "Sharding | None") -> AbstractContextManager[None]:
    """A context in which all processes together may do with a divided model what one may do with a whole one."""
    if sharding is None:
        return nullcontext()
    from fluid_core.training.sharding.fully_shard import gathered

    return gathered(model)


def save_run_models(
    model: FluidModel, average: MovingAverage, folder: Path, processes: Processes, sharding: "Sharding | None"
) -> None:
    """Write `model-raw/` and `model/`, the weights and their average, for use: the first process does."""
    if sharding is not None:
        from fluid_core.training.sharding.saving import save_sharded_model

        save_sharded_model(model, folder / "model-raw", weights="raw", processes=processes)
        save_sharded_model(model, folder / "model", weights="ema", processes=processes, averages=average.weights)
    elif processes.is_first:
        save_model(model, folder / "model-raw", weights="raw")
        with average.applied():
            save_model(model, folder / "model", weights="ema")
