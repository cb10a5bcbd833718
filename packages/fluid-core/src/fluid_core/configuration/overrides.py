"""Single values set from the command line: `training.num_steps=100`."""

import copy
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from fluid_core.configuration.structuring import describe
from fluid_core.errors import ConfigurationError

_STARTS_OF_STRUCTURED_VALUES = ('"', "'", "[", "{")


def apply_overrides(data: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A copy of plain configuration data with each `dotted.key=value` set, in the order given.

    Values are written as in TOML; a bare word is a text. A table can be replaced as a whole, which is how to
    drop the options of another component: `head.name=softmax head.options={}`. Keys are not checked here,
    `structure` does that. Raises `ConfigurationError` for an override that can not be read.
    """
    changed = copy.deepcopy(dict(data))
    for override in overrides:
        key, separator, text = override.partition("=")
        names = [name.strip() for name in key.split(".")]
        if not separator or not all(names):
            raise ConfigurationError(f"Expected an override such as 'training.num_steps=100', found {override!r}.")
        table = changed
        for depth, name in enumerate(names[:-1]):
            table = table.setdefault(name, {})
            if not isinstance(table, dict):
                place = ".".join(names[: depth + 1])
                raise ConfigurationError(f"Can not apply {override!r}: '{place}' is {describe(table)}, not a table.")
        table[names[-1]] = _value(text.strip(), override)
    return changed


def named_values(assignments: Sequence[str]) -> dict[str, Any]:
    """Names and values of a list of `name=value`, with values written as those of overrides; the last of a name wins.

    Raises `ConfigurationError` for what can not be read.
    """
    values = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or not name.strip():
            raise ConfigurationError(f"Expected a name and a value such as 'top_k=50', found {assignment!r}.")
        values[name.strip()] = _value(text.strip(), assignment)
    return values


def _value(text: str, override: str) -> Any:
    """The value that `text` stands for in TOML, or the text itself if it is bare."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError as error:
        if text.startswith(_STARTS_OF_STRUCTURED_VALUES):
            raise ConfigurationError(f"The value of {override!r} is not valid TOML: {error}.") from error
        return text
    # A line break would let one override set several keys.
    return parsed["value"] if set(parsed) == {"value"} else text
