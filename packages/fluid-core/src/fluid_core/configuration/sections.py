"""The sections of a configuration: which parts a model has, how large it is, and how it is trained."""

from collections.abc import Mapping
from enum import Enum
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import attrs
from attrs.validators import ge, gt, le, lt, optional

from fluid_core.backbone.sizes import BackboneShape, backbone_shape
from fluid_core.errors import ConfigurationError

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


def _not_blank(_: Any, attribute: "attrs.Attribute[Any]", value: str) -> None:
    if not value.strip():
        raise ConfigurationError(f"'{attribute.name}' must not be empty")


def _no_blank_prompts(_: Any, __: "attrs.Attribute[Any]", value: tuple[str, ...]) -> None:
    for index, prompt in enumerate(value):
        if not prompt.strip():
            raise ConfigurationError(f"the prompt at index {index} of 'sample_prompts' is empty")


def _share_below_one() -> Any:
    return [ge(0.0), lt(1.0)]


def _positive_or_none() -> Any:
    return optional(gt(0.0))


@attrs.frozen(kw_only=True)
class ComponentChoice:
    """A component by name, with options for it; the component itself says which options there are."""

    name: str = attrs.field(validator=_not_blank)

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
class TrainingConfig:
    """How a model is trained. Defaults follow the paper (section 4) where it states a value."""

    num_steps: int = attrs.field(validator=gt(0))
    """Optimizer steps in all; a resumed run continues up to this number."""

    max_minutes: float | None = attrs.field(default=None, validator=_positive_or_none())
    """Training time after which the run ends even if steps are left; resumed runs count on. The cosine schedule then
    follows the steps or the time, whichever is further along, and so ends near zero either way. How far a run gets
    depends on the machine: such a run can not be repeated to the bit. None (in TOML `"none"`) sets no limit."""

    batch_size: int = attrs.field(validator=gt(0))
    """Images in one step. There is one process, on one device."""

    learning_rate: float = attrs.field(default=1e-4, validator=gt(0.0))
    """The largest rate, reached after warm-up."""

    schedule: Literal["constant", "cosine"] = "constant"
    """After warm-up: the paper keeps the rate for continuous tokens, and decays it with a cosine for
    discrete ones."""

    warmup_steps: int = attrs.field(default=100, validator=ge(0))
    """Steps over which the rate rises linearly, from `1 / warmup_steps` of the largest rate; 65000 of a
    million in the paper."""

    weight_decay: float = attrs.field(default=0.02, validator=ge(0.0))
    beta1: float = attrs.field(default=0.9, validator=_share_below_one())
    beta2: float = attrs.field(default=0.95, validator=_share_below_one())
    gradient_clip_norm: float | None = attrs.field(default=1.0, validator=_positive_or_none())
    """Largest norm of all gradients together; None (in TOML `"none"`) leaves them as they are."""

    text_drop_probability: float = attrs.field(default=0.1, validator=[ge(0.0), le(1.0)])
    """Share of the captions hidden in training, so that guidance has an unconditional prediction."""

    ema_decay: float = attrs.field(default=0.9999, validator=_share_below_one())
    """Decay of the moving average of the weights; 0 keeps the latest weights."""

    seed: int = attrs.field(default=0, validator=ge(0))
    """Everything random in a run follows from it."""

    device: str = attrs.field(default="auto", validator=_not_blank)
    """`auto` takes a GPU if there is one; otherwise a name that torch knows, such as `cpu` or `cuda:1`."""

    log_every: int = attrs.field(default=10, validator=gt(0))
    """Steps between two lines of metrics."""

    checkpoint_every: int = attrs.field(default=1000, validator=gt(0))
    """Steps between two checkpoints; the last step always writes one."""

    keep_checkpoints: int = attrs.field(default=2, validator=gt(0))
    """How many checkpoints stay on disk: the newest ones."""

    sample_every: int = attrs.field(default=1000, validator=ge(0))
    """Steps between two sheets of pictures for `sample_prompts`; 0 draws none."""

    num_fit_images: int = attrs.field(default=2000, validator=gt(0))
    """Images shown to a tokenizer that learns from data, before the first step."""

    num_validation_images: int = attrs.field(default=256, validator=ge(0))
    """Images whose loss is measured with each checkpoint; 0 measures none."""


@attrs.frozen(kw_only=True)
class FluidConfig:
    """Everything a run needs: the parts of the model, and for training the data and the course."""

    tokenizer: ComponentChoice
    text_encoder: ComponentChoice
    order: ComponentChoice
    head: ComponentChoice
    backbone: BackboneConfig
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
