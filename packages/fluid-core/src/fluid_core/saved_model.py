"""A model as a folder: `model_index.json` names its components and settings, `model.safetensors` holds its weights.

A tokenizer with a format of its own for its weights, such as an autoencoder of diffusers, is in the folder
`tokenizer/` in that format, and the index names it relative to itself: the whole folder can be moved.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import torch

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
from fluid_core.configuration import ComponentChoice, FluidConfig, SavedConfig, config_to_json, read_saved_config
from fluid_core.errors import CheckpointError, UnknownComponentError
from fluid_core.model import FluidModel, modules_stored_apart
from fluid_core.protocols import StoredApart, TextEncoder

INDEX_FILE = "model_index.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FOLDER = "tokenizer"
TEXT_ENCODER = "text_encoder."
"""What the names of the text encoder's weights begin with."""


def save_model(
    model: FluidModel, folder: Path, *, weights: str, write_weights: Callable[[Path], None] | None = None
) -> None:
    """Write a model folder, whole or not at all. `weights` says which weights the model holds: `ema` or `raw`.

    `write_weights` writes the file of weights in place of those that the model has here, such as of a model of which
    this process holds a part.

    A folder that holds nothing but a saved model is replaced. Raises `CheckpointError` for a folder that holds anything
    else, which would be lost, and for a model put together from objects: a folder names components, it can not hold
    code. Raises `OutputError` if the folder can not be written.
    """
    if model.config is None:
        raise CheckpointError(
            "This model was put together from objects, and a saved folder can only name components of the catalog. "
            "Build it with FluidModel.from_config, or keep model.saved_state() with safetensors and load it into a "
            "model built the same way."
        )
    folder = folder.expanduser().resolve()
    _check_replaceable(folder)
    with new_folder(folder) as new:
        tokenizer: object = model.tokenizer
        if isinstance(tokenizer, StoredApart) and modules_stored_apart(tokenizer):
            (new / TOKENIZER_FOLDER).mkdir()
            tokenizer.save_pretrained(new / TOKENIZER_FOLDER)
        write_json(new / INDEX_FILE, _index(model, weights))
        if write_weights is None:
            write_safetensors(new / WEIGHTS_FILE, model.saved_state())
        else:
            write_weights(new / WEIGHTS_FILE)


def _check_replaceable(folder: Path) -> None:
    """Saving replaces the whole folder: refuse one with anything in it that is no saved model."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CheckpointError(f"Expected a folder to save the model in, found the file {folder}. Choose another name.")
    ours = [INDEX_FILE, WEIGHTS_FILE]
    if (folder / INDEX_FILE).is_file():
        ours.append(TOKENIZER_FOLDER)
    others = sorted(path.name for path in folder.iterdir() if path.name not in ours)
    if others:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise CheckpointError(
            f"{folder} holds {others[0]!r}{more}, which saving would delete. Save the model to a new folder, or one "
            "that holds nothing but a saved model."
        )


def _index(model: FluidModel, weights: str) -> dict[str, Any]:
    """Settings, which weights, and the distribution that provides each component."""
    assert model.config is not None
    config = attrs.evolve(model.config, text_encoder=_found_from_anywhere(model.config.text_encoder))
    index: dict[str, Any] = {"_class_name": "FluidPipeline", "weights": weights}
    tokenizer: object = model.tokenizer
    if isinstance(tokenizer, StoredApart) and modules_stored_apart(tokenizer):
        config = attrs.evolve(config, tokenizer=_stored_here(config.tokenizer, tokenizer))
        index["tokenizer_folder_option"] = tokenizer.folder_option
    saved = json.loads(config_to_json(config, catalog=model.catalog or installed_components()))
    return {**index, **saved}


def _stored_here(choice: ComponentChoice, tokenizer: StoredApart) -> ComponentChoice:
    """The choice with its folder named relative to the index, which `_found_from` undoes."""
    options = {name: value for name, value in choice.options.items() if name not in tokenizer.superseded_options}
    return attrs.evolve(choice, options={**options, tokenizer.folder_option: TOKENIZER_FOLDER})


def _found_from(folder: Path, choice: ComponentChoice, option: str) -> ComponentChoice:
    """The choice with its folder where it is now. Raises `CheckpointError` if it is not there."""
    path = folder.expanduser().resolve() / TOKENIZER_FOLDER
    if not path.is_dir():
        raise CheckpointError(
            f"Expected the tokenizer of the saved model in {path}, found no such folder. Copy the model's folder with "
            "everything in it."
        )
    return attrs.evolve(choice, options={**choice.options, option: str(path)})


def _found_from_anywhere(encoder: ComponentChoice) -> ComponentChoice:
    """The choice with the option `path` made absolute if it names a folder here.

    A frozen text encoder is named and not stored, and whoever loads the model may stand in another folder.
    """
    path = encoder.options.get("path")
    if not isinstance(path, str) or not Path(path).expanduser().is_dir():
        return encoder
    absolute = str(Path(path).expanduser().resolve())
    return attrs.evolve(encoder, options={**encoder.options, "path": absolute})


def load_model(
    folder: Path, catalog: ComponentCatalog | None = None, *, text_encoder: TextEncoder | None = None
) -> tuple[FluidModel, str]:
    """The model of a folder and which weights it holds.

    A `text_encoder` takes the place of the model's own, which is neither built nor read: where memory is short it is
    what `encode_prompts` left of it. Torch's global generator is left as it was.

    Raises `CheckpointError` for a missing or damaged folder, `CheckpointMismatchError` for weights of another model,
    `ConfigurationError` for settings that this version can not read, and `UnknownComponentError` if a plugin is not
    installed.
    """
    folder = folder.expanduser()
    catalog = catalog or installed_components()
    index = read_index(folder, catalog)
    left_out = () if text_encoder is None else (TEXT_ENCODER,)
    state = read_safetensors(folder / WEIGHTS_FILE, lambda name: not name.startswith(left_out))
    # Building draws fresh weights, which are replaced at once.
    with torch.random.fork_rng(devices=[]):
        model = build_model(index.config, catalog, text_encoder=text_encoder)
    apart = tuple(f"tokenizer.{name}." for name in modules_stored_apart(model.tokenizer))
    expected = (
        model.saved_state()
        if text_encoder is None
        else {name: one for name, one in model.state_dict().items() if not name.startswith((*left_out, *apart))}
    )
    load_state(model, state, source=str(folder / WEIGHTS_FILE), expected=expected)
    return model, index.weights


@attrs.frozen(kw_only=True)
class SavedIndex:
    """What the index of a model's folder says."""

    config: FluidConfig
    """Settings, with the folders they name where these are now."""

    weights: str
    """Which weights the folder holds: `ema` or `raw`."""


def read_index(folder: Path, catalog: ComponentCatalog) -> SavedIndex:
    """The index of a saved model. Raises as `load_model` does, but looks at no weights."""
    if not folder.is_dir():
        raise CheckpointError(f"Expected the folder of a saved model, found nothing at {folder}.")
    index = read_json(folder / INDEX_FILE)
    if not isinstance(index, dict) or index.pop("_class_name", None) != "FluidPipeline" or "weights" not in index:
        raise CheckpointError(f"{folder / INDEX_FILE} is not the index of a saved Fluid model.")
    weights = str(index.pop("weights"))
    option = index.pop("tokenizer_folder_option", None)
    saved = read_saved_config(json.dumps(index), source=f"model index {folder / INDEX_FILE}")
    config = saved.config
    if isinstance(option, str):
        config = attrs.evolve(config, tokenizer=_found_from(folder, config.tokenizer, option))
    _check_installed(saved, catalog, folder)
    return SavedIndex(config=config, weights=weights)


def _check_installed(saved: SavedConfig, catalog: ComponentCatalog, folder: Path) -> None:
    """Raise `UnknownComponentError` that names the distribution to install for each component that is missing."""
    problems = []
    for field, kind, choice in saved.config.choices():
        try:
            catalog.find(kind, choice.name)
        except UnknownComponentError as error:
            problems.append(f"{error} It was saved with {saved.provided_by.get(field, 'an unnamed distribution')}.")
    if problems:
        listed = "\n  ".join(problems)
        raise UnknownComponentError(f"The model in {folder} needs plugins that are not installed:\n  {listed}")
