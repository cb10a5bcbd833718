"""Plain data as the text of a TOML file, which the standard library reads but does not write."""

import json
import re
from collections.abc import Mapping
from typing import Any

from fluid_core.errors import ConfigurationError

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def toml_text(data: Mapping[str, Any], *, comment: str = "") -> str:
    """A TOML file with plain values first and a section for each table; what is below a section stands in one line.

    None becomes the word "none", as configurations read it. Raises `ConfigurationError` for what TOML has no word for.
    """
    lines = [f"# {line}" for line in comment.splitlines()]
    lines += [f"{_key(key)} = {_value(value)}" for key, value in data.items() if not isinstance(value, Mapping)]
    for key, table in data.items():
        if isinstance(table, Mapping):
            lines += ["", f"[{_key(key)}]", *(f"{_key(name)} = {_value(value)}" for name, value in table.items())]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _text(name)


def _text(value: str) -> str:
    # What JSON escapes is escaped alike in TOML, which also wants the delete character escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(value: Any) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(name)} = {_value(one)}" for name, one in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    raise ConfigurationError(f"Expected texts, numbers, lists and tables for TOML, found a {type(value).__name__}.")
