"""Errors a user of Fluid can meet. Every message says what was expected, what was found and what to do.

All of them derive from `FluidError`, so `except FluidError` catches what the library refuses on purpose and
lets genuine bugs through. Command-line programs print the message alone, without a traceback.
"""

import difflib
from collections.abc import Iterable
from typing import ClassVar


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


class SkippedItemError(DataError):
    """One item of a data set can not be used. Loaders count it, list it and take another in its place."""

    kind: ClassVar[str] = "unusable"
    """The sort of problem in a word, for lists and counts."""


class UnreadableImageError(SkippedItemError):
    """The picture of an item is damaged, or no picture at all."""

    kind: ClassVar[str] = "unreadable"


class MissingCaptionError(SkippedItemError):
    """An item has no caption, or an empty one."""

    kind: ClassVar[str] = "no-caption"


class ImageSizeError(SkippedItemError):
    """The picture of an item is smaller or larger than the data set's options allow."""

    kind: ClassVar[str] = "size"


class DamagedShardError(SkippedItemError):
    """A shard of a stream can not be read to its end; what came before is used."""

    kind: ClassVar[str] = "damaged-shard"


class TooManySkippedError(DataError):
    """So many items of a data set can not be used that training on the others would not be what was asked for."""


class MissingPackageError(FluidError, ImportError):
    """What was asked for needs a package that is not installed; the message says which extra brings it."""


class CheckpointError(FluidError):
    """A checkpoint or saved model is missing, damaged or unfinished."""


class CheckpointMismatchError(CheckpointError):
    """A checkpoint is whole but belongs to another model or configuration."""


class OutputError(FluidError):
    """A file or folder can not be written: no permission, no space, or something else of that name."""


class RunStoppedError(FluidError):
    """A run was asked to end (SIGTERM) and did, with a checkpoint from which it can go on."""

    exit_code: ClassVar[int] = 143
    """What a shell reports for a program that SIGTERM ended."""


class NonFiniteLossError(FluidError, ArithmeticError):
    """The loss became NaN or infinite. The message names the step and the tensor."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: `" Did you mean 'raster'?"`, or an empty string when nothing is close."""
    close = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def listing(names: Iterable[str]) -> str:
    """Names as a person would list them: `'raster', 'random'`, or `none` when there are none."""
    return ", ".join(f"'{name}'" for name in sorted(names)) or "none"
