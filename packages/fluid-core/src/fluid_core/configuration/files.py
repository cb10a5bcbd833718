"""Reads a configuration that a person wrote, as TOML."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fluid_core.configuration.overrides import apply_overrides
from fluid_core.configuration.sections import ComponentChoice, FluidConfig
from fluid_core.configuration.structuring import structure
from fluid_core.configuration.tokenizer_run import TokenizerRunConfig
from fluid_core.errors import ConfigurationError, did_you_mean


def load_config(path: Path | str, overrides: Sequence[str] = ()) -> FluidConfig:
    """The configuration in a TOML file, with `overrides` such as `training.num_steps=100` applied.

    Raises `ConfigurationError` for a file that is missing or is not TOML, and for unknown keys and wrong
    values.
    """
    path = Path(path)
    data = apply_overrides(read_toml(path), overrides)
    return structure(data, FluidConfig, subject=f"configuration {path}")


def load_tokenizer_run(path: Path | str, overrides: Sequence[str] = ()) -> TokenizerRunConfig:
    """The configuration of a tokenizer's training in a TOML file, with `overrides` applied.

    Raises `ConfigurationError` as `load_config` does.
    """
    path = Path(path)
    data = apply_overrides(read_toml(path), overrides)
    return structure(data, TokenizerRunConfig, subject=f"configuration of a tokenizer's training {path}")


def load_tokenizer_choice(path: Path | str) -> ComponentChoice:
    """The section [tokenizer] of a TOML file; other sections are left alone.

    Raises `ConfigurationError` for a file that is missing or is not TOML, and for a section that is missing or wrong.
    """
    path = Path(path)
    data = read_toml(path)
    if not isinstance(data.get("tokenizer"), dict):
        raise ConfigurationError(
            f"Expected a section [tokenizer] with a name in {path}, found {', '.join(data) or 'an empty file'}."
        )
    return structure(data["tokenizer"], ComponentChoice, root="$.tokenizer", subject=f"configuration {path}")


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file. Raises `ConfigurationError`, with a hint for a misspelt name, if it has none."""
    if path.is_dir():
        raise ConfigurationError(f"Expected a configuration file, found the folder {path}.")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        beside = [other.name for other in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        raise ConfigurationError(f"There is no configuration file {path}.{did_you_mean(path.name, beside)}") from None
    except OSError as error:
        raise ConfigurationError(f"The configuration file {path} can not be read: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"The configuration file {path} is not valid TOML: {error}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"The configuration file {path} is not text in UTF-8 (byte {error.start} can not be read)."
        ) from error
