"""Errors a user of Fluid can meet. Every message says what was expected, what was found and what to do.

All of them derive from `FluidError`, so `except FluidError` catches what the library refuses on purpose and
lets genuine bugs through. Command-line programs print the message alone, without a traceback.
"""

import difflib
from collections.abc import Iterable


class FluidError(Exception):
    """Base of every error that Fluid raises on purpose; its text is meant to be read by a person."""


class PluginError(FluidError):
    """A plugin could not be loaded, or does not keep the contract of the catalog."""


class InvalidComponentError(PluginError):
    """A plugin declared, or a build function returned, something that is not a valid component."""


class DuplicateComponentError(PluginError):
    """Two plugins declare a component of the same kind under the same name."""


class UnknownComponentError(FluidError, LookupError):
    """No installed plugin declares a component of this kind and name."""


class ConfigurationError(FluidError, ValueError):
    """A configuration has an unknown key, a value of a wrong type, or a value out of range."""


class IncompatibleComponentsError(FluidError, ValueError):
    """Tokenizer, head and order, each valid alone, can not work together."""


class InvalidRequestError(FluidError, ValueError):
    """A call asks for something that has no meaning, such as zero steps or a negative temperature."""


class InvalidTokensError(FluidError, ValueError):
    """Tokens of a wrong shape or type, or ids outside the vocabulary."""


class PromptError(FluidError, ValueError):
    """A prompt is empty, or longer than the text encoder takes."""


class DataError(FluidError, ValueError):
    """A data set is missing, has a wrong layout, or too many of its items can not be read."""


class UnreadableImageError(DataError):
    """One picture can not be read. Loaders count it, report it and take another in its place."""


class CheckpointError(FluidError):
    """A checkpoint or saved model is missing, damaged or unfinished."""


class CheckpointMismatchError(CheckpointError):
    """A checkpoint is whole but belongs to another model or configuration."""


class OutputError(FluidError):
    """A file or folder can not be written: no permission, no space, or something else of that name."""


class NonFiniteLossError(FluidError, ArithmeticError):
    """The loss became NaN or infinite. The message names the step and the tensor."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: `" Did you mean 'raster'?"`, or an empty string when nothing is close."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def listing(names: Iterable[str]) -> str:
    """Names as a person would list them: `'raster', 'random'`, or `none` when there are none."""
    return ", ".join(f"'{name}'" for name in sorted(names)) or "none"
