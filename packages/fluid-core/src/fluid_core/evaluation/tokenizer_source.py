"""Tokenizers to be compared: each named by a TOML file, or taken from the folder of something that was trained."""

import json
from collections.abc import Sequence
from pathlib import Path

import attrs

from fluid_core.catalog import ComponentCatalog
from fluid_core.configuration import ComponentChoice
from fluid_core.configuration.files import load_tokenizer_choice
from fluid_core.configuration.saved import tokenizer_run_from_json
from fluid_core.errors import CheckpointError, ConfigurationError
from fluid_core.protocols import StoredApart, Tokenizer
from fluid_core.saved_model import INDEX_FILE, TOKENIZER_FOLDER, load_model


@attrs.frozen(kw_only=True, eq=False)
class NamedTokenizer:
    """A tokenizer, and where it comes from."""

    label: str
    """Short and unlike those of the others: for tables and pictures."""

    source: str
    """The file or folder it was named by."""

    choice: ComponentChoice
    origin: str
    """Distribution and version that provide it."""

    tokenizer: Tokenizer


def named_tokenizers(paths: Sequence[Path], catalog: ComponentCatalog) -> list[NamedTokenizer]:
    """One tokenizer for each path, in evaluation mode.

    A path is a TOML file with a section [tokenizer], the folder of a saved model or of a finished run that trained one,
    or the folder of a run of `fluid tokenizer train`. Raises `ConfigurationError` for a file, and `CheckpointError` for
    a folder, that holds no tokenizer.
    """
    if not paths:
        raise ConfigurationError("Expected at least one tokenizer to report on, found none.")
    stems = [path.expanduser().resolve().stem for path in paths]
    labels = stems if len(set(stems)) == len(stems) else [str(path) for path in paths]
    if len(set(labels)) < len(labels):
        raise ConfigurationError(f"Expected different tokenizers, found one of these twice: {', '.join(labels)}.")
    found = []
    for path, label in zip(paths, labels, strict=True):
        choice, tokenizer = _from_folder(path, catalog) if path.is_dir() else _from_file(path, catalog)
        # A tokenizer is a module as well, which the type of its protocol does not say.
        tokenizer.eval()  # type: ignore[attr-defined]
        origin = catalog.find("tokenizer", choice.name).origin
        found.append(NamedTokenizer(label=label, source=str(path), choice=choice, origin=origin, tokenizer=tokenizer))
    return found


def _from_file(path: Path, catalog: ComponentCatalog) -> tuple[ComponentChoice, Tokenizer]:
    choice = load_tokenizer_choice(path)
    return choice, _built(choice, catalog)


def _from_folder(folder: Path, catalog: ComponentCatalog) -> tuple[ComponentChoice, Tokenizer]:
    for candidate in (folder, folder / "model"):
        if (candidate / INDEX_FILE).is_file():
            model, _ = load_model(candidate, catalog)
            assert model.config is not None
            return model.config.tokenizer, model.tokenizer
    if (folder / TOKENIZER_FOLDER).is_dir() and (folder / "config.json").is_file():
        return _from_tokenizer_run(folder, catalog)
    raise CheckpointError(
        f"Expected a saved model or a finished run of `fluid tokenizer train` in the folder {folder}, found neither. "
        "For weights in a folder of another kind, name it in a TOML file with a section [tokenizer]."
    )


def _from_tokenizer_run(folder: Path, catalog: ComponentCatalog) -> tuple[ComponentChoice, Tokenizer]:
    """The tokenizer that a run has trained, with the options it was trained with."""
    text = (folder / "config.json").read_text(encoding="utf-8")
    choice = tokenizer_run_from_json(json.dumps(json.loads(text)), source=str(folder / "config.json")).tokenizer
    untrained: object = _built(choice, catalog)
    assert isinstance(untrained, StoredApart)
    options = {name: value for name, value in choice.options.items() if name not in untrained.superseded_options}
    trained = folder.expanduser().resolve() / TOKENIZER_FOLDER
    choice = attrs.evolve(choice, options={**options, untrained.folder_option: str(trained)})
    return choice, _built(choice, catalog)


def _built(choice: ComponentChoice, catalog: ComponentCatalog) -> Tokenizer:
    tokenizer: Tokenizer = catalog.build("tokenizer", choice.name, choice.options, root="$.tokenizer.options")
    return tokenizer
