"""The model that an evaluation is about, loaded onto its device with what its record says about it."""

from pathlib import Path

import attrs
import torch

from fluid_core.catalog import ComponentCatalog, installed_components
from fluid_core.evaluation.result_file import MeasuredModel
from fluid_core.model import FluidModel
from fluid_core.protocols import Tokenizer
from fluid_core.sampling_run.model_identity import model_identity, model_name
from fluid_core.saved_model import load_model, read_index


@attrs.frozen(kw_only=True, eq=False)
class LoadedModel:
    """A model in evaluation mode, and what a record says about it."""

    model: FluidModel
    record: MeasuredModel


def load_measured_model(folder: Path, device: torch.device, catalog: ComponentCatalog | None = None) -> LoadedModel:
    """The saved model in `folder`. Raises as `saved_model.load_model` does."""
    model, weights = load_model(folder, catalog)
    record = MeasuredModel(
        folder=model_name(folder),
        identity=model_identity(model),
        weights=weights,
        num_parameters=num_trained(model),
    )
    return LoadedModel(model=model.to(device).eval(), record=record)


def num_trained(model: FluidModel) -> int:
    """Weights that train: neither those of the tokenizer nor those of a frozen text encoder."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def image_size_of(folder: Path, catalog: ComponentCatalog | None = None) -> tuple[int, int]:
    """Height and width of what a saved model draws, without loading its weights.

    Raises as `saved_model.read_index` and building the tokenizer do.
    """
    catalog = catalog or installed_components()
    choice = read_index(folder, catalog).config.tokenizer
    tokenizer: Tokenizer = catalog.build("tokenizer", choice.name, choice.options, root="$.tokenizer.options")
    return tokenizer.image_size
