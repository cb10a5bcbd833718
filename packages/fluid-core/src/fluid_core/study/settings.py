"""The file that describes a study. Loads no torch."""

from pathlib import Path
from typing import Any

import attrs
from attrs.validators import ge, gt

from fluid_core.configuration.files import read_toml
from fluid_core.configuration.overrides import apply_overrides
from fluid_core.configuration.sections import ComponentChoice
from fluid_core.configuration.structuring import structure
from fluid_core.errors import ConfigurationError

_NAME_LETTERS = set("abcdefghijklmnopqrstuvwxyz0123456789-.")


def _all(validator: Any) -> Any:
    return attrs.validators.deep_iterable(validator)


def _names(_: Any, attribute: "attrs.Attribute[Any]", value: dict[str, Any]) -> None:
    """Names of variants and sizes are parts of folder names."""
    if not value:
        raise ConfigurationError(f"'{attribute.name}' must have at least one entry")
    for name in value:
        if not name or set(name) - _NAME_LETTERS or "--" in name:
            raise ConfigurationError(
                f"names in '{attribute.name}' must be of lower-case letters, digits, dots and single hyphens, found "
                f"'{name}'"
            )


def _different(_: Any, attribute: "attrs.Attribute[Any]", value: tuple[Any, ...] | None) -> None:
    if value is not None and (not value or len(set(value)) != len(value)):
        raise ConfigurationError(f"'{attribute.name}' must be one value or more, each once, found {list(value)}")


@attrs.frozen(kw_only=True)
class StudySize:
    """One size of all variants."""

    backbone: dict[str, Any]
    """The section [backbone], in place of that of the base configuration."""

    changes: dict[str, Any] = attrs.field(factory=dict)
    """What else differs at this size, by section, such as `training = { learning_rate = 1e-3 }`."""

    seeds: tuple[int, ...] | None = attrs.field(default=None, validator=_different)
    """Seeds at this size; None takes those of the study."""


@attrs.frozen(kw_only=True)
class StudyBudget:
    """What every run may spend, the same for all of them."""

    images: int = attrs.field(validator=gt(0))
    """Images seen in training, rounded up to whole batches."""


@attrs.frozen(kw_only=True)
class StudyEvaluation:
    """How every run is measured."""

    num_validation_images: int = attrs.field(default=1000, validator=gt(0))
    """Images of the validation split whose loss is measured, with the same noise and masks for all runs."""

    prompts_per_task: int = attrs.field(default=50, validator=gt(0))
    """Prompts drawn and judged for each task, the same for all runs."""

    guidance_scales: tuple[float, ...] = attrs.field(default=(1.0,), validator=[_different, _all(ge(0.0))])
    """With more than one, each run is drawn with the scale that suits it best, found on prompts of their own: models
    differ in how much guidance they need, and one scale for all would compare that."""

    prompts_per_task_for_guidance: int = attrs.field(default=12, validator=gt(0))
    temperature: float = attrs.field(default=1.0, validator=ge(0.0))
    order_steps: tuple[int, ...] = attrs.field(default=(), validator=_all(gt(0)))
    """Numbers of steps of the order at which scores are taken besides its own. Orders that can not take a number, such
    as raster, are left out there."""

    head_steps: tuple[int, ...] = attrs.field(default=(), validator=_all(gt(0)))
    """Numbers of steps of iterative heads at which scores are taken besides their own."""

    sweep_sizes: tuple[str, ...] | None = None
    """Sizes whose runs are measured at these steps; None is all of them."""

    batch_size: int = attrs.field(default=96, validator=gt(0))
    """Pictures drawn at once."""

    seed: int = attrs.field(default=0, validator=ge(0))


@attrs.frozen(kw_only=True)
class StudySettings:
    """A study: a base configuration, and everything that is varied."""

    base: Path
    """A configuration for `fluid train`, relative to the file of the study."""

    budget: StudyBudget
    title: str = "Study"
    seeds: tuple[int, ...] = attrs.field(default=(0,), validator=[_different, _all(ge(0))])
    changes: dict[str, Any] = attrs.field(factory=dict)
    """Changes to the base configuration that all runs share, by section."""

    parts: dict[str, ComponentChoice] = attrs.field(factory=dict)
    """Components with their options under names of one's own, for the variants."""

    variants: dict[str, dict[str, Any]] = attrs.field(validator=_names)
    """Changes by section. A component is the name of one of the `parts`, or of a component as it comes, or a table."""

    sizes: dict[str, StudySize] = attrs.field(validator=_names)
    """From the smallest to the largest."""

    evaluation: StudyEvaluation = attrs.field(factory=StudyEvaluation)

    def __attrs_post_init__(self) -> None:
        unknown = [name for name in self.evaluation.sweep_sizes or () if name not in self.sizes]
        if unknown:
            raise ConfigurationError(f"'sweep_sizes' must be sizes of the study, found {', '.join(unknown)}")


def load_study(path: Path | str, overrides: list[str] | None = None) -> StudySettings:
    """The study in a TOML file, with `overrides` such as `budget.images=1000` applied.

    Raises `ConfigurationError` for a file that is missing or is not TOML, and for unknown keys and wrong values.
    """
    path = Path(path)
    data = apply_overrides(read_toml(path), overrides or [])
    study = structure(data, StudySettings, subject=f"study {path}")
    return attrs.evolve(study, base=path.parent / study.base)
