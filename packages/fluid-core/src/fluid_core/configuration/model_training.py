"""The section [training] of a model's configuration: the course of its training, and how its steps are computed."""

from pathlib import Path
from typing import Any, Literal

import attrs
from attrs.validators import ge, gt, le, optional

from fluid_core.configuration.course import TrainingCourse
from fluid_core.errors import ConfigurationError


def _at_most_batch_size(config: "TrainingConfig", _: "attrs.Attribute[Any]", value: int) -> None:
    if value > config.batch_size:
        raise ConfigurationError(
            f"'accumulation_steps' must not be larger than 'batch_size', found {value} parts for {config.batch_size} "
            "images"
        )


@attrs.frozen(kw_only=True)
class TrainingConfig(TrainingCourse):
    """How a model is trained."""

    text_drop_probability: float = attrs.field(default=0.1, validator=[ge(0.0), le(1.0)])
    """Share of the captions hidden in training, so that guidance has an unconditional prediction."""

    accumulation_steps: int = attrs.field(default=1, validator=[gt(0), _at_most_batch_size])
    """Parts that each process cuts its share of a batch into. They are computed one after the other and their
    gradients summed before the one update of the weights: memory of a part, result of the whole."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """In what the backbone multiplies. `bfloat16` is autocast: weights, optimizer, averages and the losses of heads
    stay in float32. `auto` is `bfloat16` on a GPU that has it, and `float32` elsewhere."""

    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    """Which transformer blocks forget what they computed and compute it again in the backward pass: none, every second
    one, or all of them. Saves memory, costs time; the gradients are the same."""

    compile: bool = False
    """Compile the transformer blocks with `torch.compile`: the first steps take longer, the others less."""

    sharding: Literal["none", "full", "hybrid"] = "none"
    """What several processes divide among themselves: nothing but the batch, or also weights, averages and optimizer,
    over all processes (`full`) or over those of each group while groups repeat each other (`hybrid`)."""

    shards_per_group: int | None = attrs.field(default=None, validator=optional(gt(0)))
    """Processes in a group of `hybrid` sharding; None (in TOML `"none"`) takes those of one machine."""

    init_from: Path | None = None
    """Folder of a saved model, or of a finished run, whose weights a new run starts from where their names and shapes
    fit. What does not fit starts anew and is named. A resumed run goes on from its own checkpoint instead."""

    init_strict: bool = False
    """Refuse to start from a model that does not fit in every tensor, instead of naming what does not."""

    on_non_finite: Literal["stop", "skip"] = "stop"
    """What to do when a loss or gradient is NaN or infinite: end the run, or leave that step out and go on."""

    max_skipped_steps: int = attrs.field(default=10, validator=gt(0))
    """How many steps in a row may be left out before the run ends after all."""

    tensorboard: bool = False
    """Also write the metrics as TensorBoard events, to `tensorboard/` in the run's folder."""
