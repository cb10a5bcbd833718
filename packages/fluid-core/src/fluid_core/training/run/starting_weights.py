"""Fine-tuning: a new run that starts from the weights of a saved model, as far as they fit.

The backbone of one model may carry another head, and so on. What is taken over goes by name and shape; everything else
starts anew and is named, so that nobody trains from scratch what they meant to keep.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
from torch import Tensor

from fluid_core.atomic_files import read_safetensors
from fluid_core.catalog import installed_components
from fluid_core.configuration import ComponentChoice, FluidConfig
from fluid_core.configuration.structuring import unstructure
from fluid_core.errors import CheckpointError, CheckpointMismatchError, FluidError
from fluid_core.model import FluidModel, modules_stored_apart
from fluid_core.protocols import Identified, StoredApart
from fluid_core.saved_model import INDEX_FILE, WEIGHTS_FILE, read_index
from fluid_core.training.sharding.divided_tensors import put

if TYPE_CHECKING:
    from fluid_core.catalog import ComponentCatalog

_NUM_SHOWN = 4
"""Names of tensors in one line of a message."""

_TOKENIZER = "tokenizer"


@attrs.frozen(kw_only=True, eq=False)
class StartingWeights:
    """Weights of a saved model for a new one, and what does not fit."""

    folder: Path
    tensors: dict[str, Tensor]
    """What is taken over, by name."""

    anew: tuple[str, ...]
    """Tensors of the new model that the saved one does not have."""

    unused: tuple[str, ...]
    """Tensors of the saved model that the new one does not have."""

    misshapen: tuple[str, ...]
    """Tensors that both have, in different shapes: they start anew as well."""

    differences: tuple[str, ...]
    """Parts chosen otherwise than in the saved model, in words: weights that fit may mean something else to them."""

    @property
    def whole(self) -> bool:
        """Whether every tensor fits and every part is the same."""
        return not (self.anew or self.unused or self.misshapen or self.differences)

    def message(self) -> str:
        """What was taken over and what was not, part by part."""
        parts = dict.fromkeys(_part(name) for name in (*self.tensors, *self.anew, *self.misshapen))
        lines = [f"starting from the weights of {self.folder}"]
        for part in parts:
            taken = sum(_part(name) == part for name in self.tensors)
            new = [name for name in (*self.anew, *self.misshapen) if _part(name) == part]
            if not new:
                lines.append(f"{part}: taken over ({taken} tensors)")
            elif not taken:
                lines.append(f"{part}: starts anew, nothing of it fits ({_names(new)})")
            else:
                lines.append(f"{part}: {taken} tensors taken over, {len(new)} start anew ({_names(new)})")
        if self.misshapen:
            lines.append(f"of another shape in the saved model: {_names(self.misshapen)}")
        if self.unused:
            lines.append(f"not used: {_names(self.unused)}")
        lines += [f"chosen otherwise: {difference}" for difference in self.differences]
        return "\n  ".join(lines)


def find_starting_weights(
    model: FluidModel,
    config: FluidConfig,
    folder: Path,
    *,
    strict: bool = False,
    catalog: "ComponentCatalog | None" = None,
) -> StartingWeights:
    """What a model built from `config` can take from the model saved in `folder`, or from the run there.

    The tokenizer stays the one that `config` names: what it had learned from images, such as statistics, is taken over
    only if it is the same tokenizer. Nothing is changed here. Raises `CheckpointError` for a folder without a saved
    model, and `CheckpointMismatchError` if nothing fits, or with `strict` if anything does not.
    """
    catalog = catalog or installed_components()
    folder = model_folder(folder)
    index = read_index(folder, catalog)
    saved = read_safetensors(folder / WEIGHTS_FILE)
    expected = model.saved_state()
    differences = _differences(index.config, config)
    tokenizer_differs = _tokenizer_difference(model, index.config, config, catalog)
    if tokenizer_differs is not None:
        differences[_TOKENIZER] = tokenizer_differs
        saved = {name: tensor for name, tensor in saved.items() if _part(name) != _TOKENIZER}
        expected = {name: tensor for name, tensor in expected.items() if _part(name) != _TOKENIZER}
    else:
        differences.pop(_TOKENIZER, None)
    misshapen = tuple(
        f"{name} {tuple(saved[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in saved and saved[name].shape != tensor.shape
    )
    fitting = {
        name: saved[name] for name, tensor in expected.items() if name in saved and saved[name].shape == tensor.shape
    }
    found = StartingWeights(
        folder=folder,
        tensors=fitting,
        anew=tuple(name for name in expected if name not in saved),
        unused=tuple(name for name in saved if name not in expected),
        misshapen=misshapen,
        differences=tuple(differences.values()),
    )
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    if not trained & set(fitting):
        raise CheckpointMismatchError(
            f"training.init_from names {folder}, of whose weights not one fits this model. Choose a model with the "
            f"same backbone, or leave training.init_from out.\n{found.message()}"
        )
    if strict and not found.whole:
        raise CheckpointMismatchError(
            f"The model in {folder} does not fit in everything, which training.init_strict asks for. Change the "
            f"configuration, or set training.init_strict to false.\n{found.message()}"
        )
    return found


def take_over(model: FluidModel, found: StartingWeights) -> None:
    """Put the weights into the model, of one that is divided among processes into this one's part."""
    state = model.state_dict()
    for name, tensor in found.tensors.items():
        put(state[name], tensor)


def model_folder(folder: Path) -> Path:
    """The folder of the saved model that `folder` is, or that the run in it has left.

    Raises `CheckpointError` if there is none.
    """
    folder = folder.expanduser()
    for place in (folder, folder / "model"):
        if (place / INDEX_FILE).is_file():
            return place
    if (folder / "checkpoints").is_dir():
        raise CheckpointError(
            f"training.init_from names {folder}, a run that has not ended: it has no folder 'model' yet. Let it end "
            "(--resume, with a smaller training.num_steps if need be), or choose another model."
        )
    what = "holds no saved model and no run" if folder.is_dir() else "is no folder"
    raise CheckpointError(
        f"Expected training.init_from to name the folder of a saved model (with {INDEX_FILE}) or of a finished run, "
        f"but {folder} {what}."
    )


def _differences(saved: FluidConfig, config: FluidConfig) -> dict[str, str]:
    """Parts that are chosen by other names, in words."""
    fields = ("tokenizer", "text_encoder", "order", "head")
    found = {field: (getattr(saved, field).name, getattr(config, field).name) for field in fields}
    return {field: f"{field} '{new}' instead of '{old}'" for field, (old, new) in found.items() if old != new}


def _tokenizer_difference(
    model: FluidModel, saved: FluidConfig, config: FluidConfig, catalog: "ComponentCatalog"
) -> str | None:
    """How the tokenizer of the saved model differs from this model's, in words; None if it is the same."""
    old, new = saved.tokenizer, config.tokenizer
    if old.name != new.name:
        return f"tokenizer '{new.name}' instead of '{old.name}': the tokens of the saved model mean something else"
    tokenizer: object = model.tokenizer
    if isinstance(tokenizer, StoredApart) and modules_stored_apart(tokenizer) and isinstance(tokenizer, Identified):
        try:
            saved_one = catalog.build("tokenizer", old.name, old.options)
        except FluidError as error:
            return f"tokenizer '{new.name}': that of the saved model can not be read to compare ({error})"
        same = isinstance(saved_one, Identified) and saved_one.identity() == tokenizer.identity()
        return None if same else f"tokenizer '{new.name}' with other weights: its tokens mean something else"
    changed = _changed_options(old, new)
    return f"tokenizer '{new.name}' with another {', '.join(changed)}" if changed else None


def _changed_options(old: ComponentChoice, new: ComponentChoice) -> list[str]:
    before, after = _plain(old), _plain(new)
    return sorted(name for name in {**before, **after} if before.get(name) != after.get(name))


def _plain(choice: ComponentChoice) -> Mapping[str, Any]:
    plain: dict[str, Any] = unstructure(choice)["options"]
    return plain


def _part(name: str) -> str:
    return name.partition(".")[0]


def _names(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - _NUM_SHOWN} more" if len(names) > _NUM_SHOWN else ""
    return ", ".join(names[:_NUM_SHOWN]) + more
