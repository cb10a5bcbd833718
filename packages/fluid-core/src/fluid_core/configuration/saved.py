"""The JSON that lies beside saved weights: the configuration, and which distributions it was made with."""

import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any, TypeVar

import attrs

from fluid_core.catalog import ComponentCatalog
from fluid_core.configuration.sections import FluidConfig
from fluid_core.configuration.structuring import describe, structure, unstructure
from fluid_core.configuration.tokenizer_run import TokenizerRunConfig
from fluid_core.errors import ConfigurationError

T = TypeVar("T")

FORMAT_VERSION = 1
"""Version of the layout written below; a reader refuses versions above its own."""


@attrs.frozen(kw_only=True)
class SavedConfig:
    """A configuration as it was saved, with its origin."""

    format_version: int
    packages: dict[str, str]
    """Versions of the packages that wrote it, such as `fluid-core` and `torch`."""

    provided_by: dict[str, str] = attrs.field(factory=dict)
    """For each component, by its key in the configuration, the distribution that provided it: `fluid-heads
    0.1.0`."""

    config: FluidConfig


@attrs.frozen(kw_only=True)
class SavedTokenizerRun:
    """The configuration of a tokenizer's training as it was saved; fields as those of `SavedConfig`."""

    format_version: int
    packages: dict[str, str]
    provided_by: dict[str, str] = attrs.field(factory=dict)
    config: TokenizerRunConfig


def config_to_json(config: FluidConfig | TokenizerRunConfig, *, catalog: ComponentCatalog | None = None) -> str:
    """The text of a JSON file that `config_from_json`, or `tokenizer_run_from_json`, reads back to an equal
    configuration.

    With a `catalog` it also names the distribution that provides each component, for people who miss one
    later.
    """
    provided_by = (
        {field: catalog.find(kind, choice.name).origin for field, kind, choice in config.choices()} if catalog else {}
    )
    origin: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "packages": {name: importlib.metadata.version(name) for name in ("fluid-core", "torch")},
        "provided_by": provided_by,
    }
    saved = (
        SavedConfig(**origin, config=config)
        if isinstance(config, FluidConfig)
        else SavedTokenizerRun(**origin, config=config)
    )
    return json.dumps(unstructure(saved), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def config_from_json(text: str, *, source: str = "saved configuration") -> FluidConfig:
    """The configuration in a text that `config_to_json` made; see `read_saved_config`."""
    return read_saved_config(text, source=source).config


def tokenizer_run_from_json(text: str, *, source: str = "saved configuration") -> TokenizerRunConfig:
    """The configuration of a tokenizer's training in a text that `config_to_json` made; see `read_saved_config`."""
    return _read(text, SavedTokenizerRun, source).config


def read_saved_config(text: str, *, source: str = "saved configuration") -> SavedConfig:
    """Everything in a text that `config_to_json` made; `source` names it in messages.

    Raises `ConfigurationError` if it is not JSON, was written by a newer version, or has an unknown key or a
    wrong value.
    """
    return _read(text, SavedConfig, source)


def _read(text: str, cls: type[T], source: str) -> T:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigurationError(
            f"The {source} is not valid JSON: {error}. The file is damaged or was not written by Fluid."
        ) from error
    version = data.get("format_version") if isinstance(data, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        found = describe(version if isinstance(data, dict) else data)
        raise ConfigurationError(
            f"Expected the {source} to be a table with 'format_version', a whole number from 1, found "
            f"{found}. It was not written by Fluid."
        )
    if version > FORMAT_VERSION:
        writer = _writer(data)
        raise ConfigurationError(
            f"The {source} has format {version}, written by {writer}; this is fluid-core "
            f"{importlib.metadata.version('fluid-core')}, which reads formats up to {FORMAT_VERSION}. "
            f"Upgrade with: pip install --upgrade fluid-core."
        )
    return structure(data, cls, subject=source)


def _writer(data: Mapping[str, Any]) -> str:
    """Who wrote a file, told from a layout that is not ours: nothing in it can be relied on."""
    packages = data.get("packages")
    version = packages.get("fluid-core") if isinstance(packages, dict) else None
    return f"fluid-core {version}" if isinstance(version, str) else "a newer fluid-core"
