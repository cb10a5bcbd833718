"""Whether a configuration continues the run that another one started."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fluid_core.configuration import FluidConfig, TokenizerRunConfig
from fluid_core.configuration.structuring import unstructure
from fluid_core.errors import CheckpointMismatchError

FREE_TO_CHANGE = (
    "text_encoder.options.overlong",
    "data.options.path",
    "data.options.validation_path",
    "data.options.cache_dir",
    "data.options.verify",
    "data.options.max_open_shards",
)
"""Keys of model and data that may differ on resume, because weights mean the same under either value: what happens to
prompts that are too long, where a data set lies (moving it is fine; that it is the same data is not checked), and how a
cache is checked and opened."""

_MOST_SHOWN = 8


RunConfig = FluidConfig | TokenizerRunConfig


def check_same_run(saved: RunConfig, config: RunConfig, folder: Path) -> None:
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


def _values(config: RunConfig) -> dict[str, Any]:
    """Every value of model and data by its key, such as `head.options.depth`."""
    plain = {key: value for key, value in unstructure(config).items() if key not in ("training", "sample_prompts")}
    return dict(_leaves(plain, ""))


def _leaves(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    elif value != {}:
        yield key, value


def _text(values: dict[str, Any], key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False) if key in values else "not set"
