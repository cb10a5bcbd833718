"""A model as a folder: `model_index.json` names its components and settings, `model.safetensors` holds its weights."""

import json
from pathlib import Path
from typing import Any

from fluid_core.assembly import build_model
from fluid_core.atomic_files import (
    load_state,
    new_folder,
    read_json,
    read_safetensors,
    write_json,
    write_safetensors,
)
from fluid_core.catalog import ComponentCatalog, installed_components
from fluid_core.configuration import FluidConfig, config_to_json, read_saved_config
from fluid_core.errors import CheckpointError, UnknownComponentError
from fluid_core.model import FluidModel

INDEX_FILE = "model_index.json"
WEIGHTS_FILE = "model.safetensors"


def save_model(model: FluidModel, folder: Path, *, weights: str) -> None:
    """Write a model folder, whole or not at all. `weights` says which weights the model holds: `ema` or `raw`.

    Raises `CheckpointError` for a model put together from objects: a folder names components, it can not hold code.
    """
    if model.config is None:
        raise CheckpointError(
            "This model was put together from objects, and a saved folder can only name components of the catalog. "
            "Build it with FluidModel.from_config, or keep model.saved_state() with safetensors and load it into a "
            "model built the same way."
        )
    with new_folder(folder) as new:
        write_json(new / INDEX_FILE, _index(model.config, weights))
        write_safetensors(new / WEIGHTS_FILE, model.saved_state())


def _index(config: FluidConfig, weights: str) -> dict[str, Any]:
    """Settings, which weights, and the distribution that provides each component."""
    saved = json.loads(config_to_json(config, catalog=installed_components()))
    return {"_class_name": "FluidPipeline", "weights": weights, **saved}


def load_model(folder: Path, catalog: ComponentCatalog | None = None) -> tuple[FluidModel, str]:
    """The model of a folder and which weights it holds.

    Raises `CheckpointError` for a missing or damaged folder, `UnknownComponentError` if a plugin is not installed.
    """
    if not folder.is_dir():
        raise CheckpointError(f"Expected the folder of a saved model, found nothing at {folder}.")
    index = read_json(folder / INDEX_FILE)
    if (
        not isinstance(index, dict)
        or index.pop("_class_name", None) != "FluidPipeline"
        or "weights" not in index
    ):
        raise CheckpointError(f"{folder / INDEX_FILE} is not the index of a saved Fluid model.")
    weights = str(index.pop("weights"))
    saved = read_saved_config(json.dumps(index), source=f"model index {folder / INDEX_FILE}")
    state = read_safetensors(folder / WEIGHTS_FILE)
    try:
        model = build_model(saved.config, catalog)
    except UnknownComponentError as error:
        raise UnknownComponentError(
            f"{error} The model in {folder} was saved with components of "
            f"{', '.join(sorted(set(saved.provided_by.values())))}: install what is missing."
        ) from error
    load_state(model, state, source=str(folder / WEIGHTS_FILE), expected=model.saved_state())
    return model, weights
