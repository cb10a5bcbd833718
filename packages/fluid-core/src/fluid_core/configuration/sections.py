"""The sections of a configuration: which parts a model has, how large it is, and how it is trained."""

from collections.abc import Mapping
from enum import Enum
from math import isfinite
from pathlib import Path
from typing import Any

import attrs
from attrs.validators import ge, gt, lt, optional

from fluid_core.backbone.sizes import BackboneShape, backbone_shape
from fluid_core.configuration.course import not_blank
from fluid_core.configuration.model_training import TrainingConfig
from fluid_core.errors import ConfigurationError
from fluid_core.text.options import UnconditionalText

_KINDS = {
    "tokenizer": "tokenizer",
    "text_encoder": "text-encoder",
    "order": "order",
    "head": "head",
    "data": "dataset",
}
"""The keys of a configuration that choose a component, with the kind of component each takes."""


def _plain(value: Any) -> Any:
    """A copy of an options value, made of what JSON can hold. Raises `ConfigurationError` otherwise."""
    if isinstance(value, Enum):
        return _plain(value.value)
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float) and isfinite(value):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    raise ConfigurationError(
        f"options must be texts, finite numbers, true or false, lists and tables of these, found {value!r}"
    )


def _plain_options(value: Any) -> Any:
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"options must be a table, found {value!r}")
    return _plain(value)


def _no_blank_prompts(_: Any, __: "attrs.Attribute[Any]", value: tuple[str, ...]) -> None:
    for index, prompt in enumerate(value):
        if not prompt.strip():
            raise ConfigurationError(f"the prompt at index {index} of 'sample_prompts' is empty")


@attrs.frozen(kw_only=True)
class ComponentChoice:
    """A component by name, with options for it; the component itself says which options there are."""

    name: str = attrs.field(validator=not_blank)

    options: dict[str, Any] = attrs.field(factory=dict, converter=_plain_options)
    """Copied on the way in, with tuples as lists and paths as texts, so that it equals what a file gives
    back."""


@attrs.frozen(kw_only=True)
class BackboneConfig:
    """The transformer: a named `size`, or `width`, `depth` and `num_heads`.

    The other values refine either; None keeps what the size says, or for explicit shapes the default of
    `BackboneShape`. Raises `ConfigurationError` if the two ways are mixed, or neither is complete.
    """

    size: str | None = None
    """A key of `fluid_core.backbone.sizes.SIZES`, such as `0.2b`."""

    width: int | None = attrs.field(default=None, validator=optional(gt(0)))
    depth: int | None = attrs.field(default=None, validator=optional(gt(0)))
    num_heads: int | None = attrs.field(default=None, validator=optional(gt(0)))
    aligner_depth: int | None = attrs.field(default=None, validator=optional(ge(0)))
    """Blocks of the text aligner; six in the paper (section 3)."""

    mlp_ratio: float | None = attrs.field(default=None, validator=optional(gt(0.0)))
    dropout: float | None = attrs.field(default=None, validator=optional([ge(0.0), lt(1.0)]))

    def __attrs_post_init__(self) -> None:
        given = [name for name in ("width", "depth", "num_heads") if getattr(self, name) is not None]
        if self.size is not None and given:
            raise ConfigurationError(
                f"expected either 'size' or 'width', 'depth' and 'num_heads', found 'size' and {_quoted(given)}"
            )
        if self.size is None and len(given) < 3:
            raise ConfigurationError(
                f"expected 'size', or all of 'width', 'depth' and 'num_heads', found {_quoted(given) or 'none of them'}"
            )
        self.shape()

    def shape(self) -> BackboneShape:
        """The shape that this describes. Raises `ConfigurationError` for a size that does not exist."""
        given = attrs.asdict(self, filter=lambda field, value: value is not None and field.name != "size")
        if self.size is None:
            return BackboneShape(**given)
        return attrs.evolve(backbone_shape(self.size), **given)


@attrs.frozen(kw_only=True)
class FluidConfig:
    """Everything a run needs: the parts of the model, and for training the data and the course."""

    tokenizer: ComponentChoice
    text_encoder: ComponentChoice
    order: ComponentChoice
    head: ComponentChoice
    backbone: BackboneConfig
    unconditional: UnconditionalText = "learned"
    """What stands for no text, for dropped captions and for guidance without a negative prompt: a `learned` state, or
    the text encoder's states of the `empty-prompt`."""

    data: ComponentChoice | None = None
    training: TrainingConfig | None = None
    sample_prompts: tuple[str, ...] = attrs.field(default=(), validator=_no_blank_prompts)
    """Prompts drawn while the model trains."""

    def choices(self) -> tuple[tuple[str, str, ComponentChoice], ...]:
        """Every component chosen, as (key in the configuration, kind of component, choice)."""
        chosen = ((field, kind, getattr(self, field)) for field, kind in _KINDS.items())
        return tuple((field, kind, choice) for field, kind, choice in chosen if choice is not None)

    def model_part(self) -> "FluidConfig":
        """What is saved beside the weights: the parts of the model without data, training and prompts."""
        return attrs.evolve(self, data=None, training=None, sample_prompts=())


def _quoted(names: list[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
