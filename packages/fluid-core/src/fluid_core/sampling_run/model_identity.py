"""Which model drew a picture: a fingerprint of its weights and of the settings that sampling depends on."""

from pathlib import Path
from typing import Any

from fluid_core.configuration.structuring import unstructure
from fluid_core.identity import identity_of
from fluid_core.model import FluidModel, modules_stored_apart
from fluid_core.protocols import Identified

_NOT_FOR_SAMPLING = ("data", "training", "sample_prompts")


def model_identity(model: FluidModel) -> str:
    """SHA-256, in hexadecimal, of a model that was loaded from a folder.

    Data and course of its training do not count, nor where it lies. A frozen text encoder counts by its name and
    options: its weights may be larger than all others together.
    """
    description: dict[str, Any] = {}
    if model.config is not None:
        settings = unstructure(model.config)
        description = {name: value for name, value in settings.items() if name not in _NOT_FOR_SAMPLING}
    tokenizer: object = model.tokenizer
    if modules_stored_apart(tokenizer) and isinstance(tokenizer, Identified):
        # Its options say where its folder is, and its weights are not among those of the model.
        description["tokenizer"] = {
            "name": model.config.tokenizer.name if model.config else "",
            "is": tokenizer.identity(),
        }
    return identity_of(description, model.saved_state())


def model_name(folder: Path) -> str:
    """The name people know a model by: that of its run, if it lies in one."""
    folder = folder.resolve()
    return f"{folder.parent.name}/{folder.name}" if folder.name == "model" else folder.name
