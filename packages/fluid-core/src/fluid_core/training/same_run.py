"""Whether a configuration continues the run that another one started."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from fluid_core.configuration import FluidConfig
from fluid_core.configuration.structuring import unstructure
from fluid_core.errors import CheckpointMismatchError

FREE_TO_CHANGE = ("text_encoder.options.overlong", "data.options.path")
"""Keys of model and data that may differ on resume, because weights mean the same under either value: what happens to
prompts that are too long, and where a data set lies (moving it is fine; that it is the same data is not checked)."""

_MOST_SHOWN = 8


def check_same_run(saved: FluidConfig, config: FluidConfig, folder: Path) -> None:
    """Raise `CheckpointMismatchError`, listing the keys, if `config` changes the model or the data of the run `saved`.

    The sections for training and the prompts drawn meanwhile may change; so may the keys in `FREE_TO_CHANGE`.
    """
    before, after = _values(saved), _values(config)
    # The order of a configuration file; keys that only the new one has come last.
    different = [key for key in {**before, **after} if before.get(key, _ABSENT) != after.get(key, _ABSENT)]
    different = [key for key in different if key not in FREE_TO_CHANGE]
    if not different:
        return
    lines = [f"{key}: {_text(before, key)} -> {_text(after, key)}" for key in different[:_MOST_SHOWN]]
    if len(different) > _MOST_SHOWN:
        lines.append(f"and {len(different) - _MOST_SHOWN} more")
    raise CheckpointMismatchError(
        f"The run in {folder} was started with another model or data configuration (see its config.json). From what it "
        "was to what is asked for now:\n  "
        + "\n  ".join(lines)
        + "\nResume with what it was, or choose another folder."
    )


_ABSENT = object()


def _values(config: FluidConfig) -> dict[str, Any]:
    """Every value of model and data by its key, such as `head.options.depth`."""
    return dict(_leaves(unstructure(attrs.evolve(config, training=None, sample_prompts=())), ""))


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif value != {}:
        yield key, value


def _text(values: dict[str, Any], key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False) if key in values else "not set"
