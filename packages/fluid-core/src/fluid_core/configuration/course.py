"""How anything is trained: the length of a run, its steps, and what it writes on the way."""

from typing import Any, Literal

import attrs
from attrs.validators import ge, gt, le, lt, optional

from fluid_core.errors import ConfigurationError


def not_blank(_: Any, attribute: "attrs.Attribute[Any]", value: str) -> None:
    """A validator for texts. Raises `ConfigurationError` for an empty one."""
    if not value.strip():
        raise ConfigurationError(f"'{attribute.name}' must not be empty")


def _share_below_one() -> Any:
    return [ge(0.0), lt(1.0)]


def _positive_or_none() -> Any:
    return optional(gt(0.0))


@attrs.frozen(kw_only=True)
class TrainingCourse:
    """What the training of a model and of a tokenizer have in common. Defaults follow the paper (section 4) where it
    states a value.
    """

    num_steps: int = attrs.field(validator=gt(0))
    """Optimizer steps in all; a resumed run continues up to this number."""

    max_minutes: float | None = attrs.field(default=None, validator=_positive_or_none())
    """Training time after which the run ends even if steps are left; resumed runs count on. The cosine schedule then
    follows the steps or the time, whichever is further along, and so ends near zero either way. How far a run gets
    depends on the machine: such a run can not be repeated to the bit. None (in TOML `"none"`) sets no limit."""

    batch_size: int = attrs.field(validator=gt(0))
    """Images in one step, of all processes together."""

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

    ema_decay: float = attrs.field(default=0.9999, validator=_share_below_one())
    """Decay of the moving average of the weights; 0 keeps the latest weights."""

    seed: int = attrs.field(default=0, validator=ge(0))
    """Everything random in a run follows from it."""

    device: str = attrs.field(default="auto", validator=not_blank)
    """`auto` takes a GPU if there is one; otherwise a name that torch knows, such as `cpu` or `cuda:1`."""

    log_every: int = attrs.field(default=10, validator=gt(0))
    """Steps between two lines of metrics."""

    checkpoint_every: int = attrs.field(default=1000, validator=gt(0))
    """Steps between two checkpoints; the last step always writes one."""

    keep_checkpoints: int = attrs.field(default=2, validator=gt(0))
    """How many checkpoints stay on disk: the newest ones."""

    sample_every: int = attrs.field(default=1000, validator=ge(0))
    """Steps between two sheets of pictures, of `sample_prompts` or of reconstructions; 0 draws none."""

    max_skipped_share: float = attrs.field(default=0.05, validator=[ge(0.0), le(1.0)])
    """Share of the images that may be skipped because they are damaged, without a caption, too small or too large; if
    there are more, among at least 200, the run stops with the reasons."""

    num_fit_images: int = attrs.field(default=2000, validator=gt(0))
    """Images from which a tokenizer that learns from data does so: before the first step of a model, and after the
    last step of its own training."""

    num_validation_images: int = attrs.field(default=256, validator=ge(0))
    """Images that are measured with each checkpoint; 0 measures none."""
