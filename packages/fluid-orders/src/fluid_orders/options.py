"""Options of the built-in orders. No torch here: listing components must stay fast."""

from typing import Any, Literal, get_args

import attrs
from attrs.validators import ge, instance_of, optional

StepCurve = Literal["cosine", "arccos", "linear", "constant"]
"""How step sizes change in the course of a generation: see `fluid_orders.step_sizes`."""

NamedPath = Literal["centre-out", "spiral", "columns", "raster", "reverse-raster"]
"""Paths over a grid that the fixed order knows by name: see `fluid_orders.named_paths`."""


def _sequence_as_tuple(value: object) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _curve_or_sizes(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if isinstance(value, str):
        if value not in get_args(StepCurve):
            raise ValueError(f"'{attribute.name}' must be one of {get_args(StepCurve)} or step sizes, found {value!r}")
    elif not (isinstance(value, tuple) and value and all(type(size) is int and size > 0 for size in value)):
        raise ValueError(f"'{attribute.name}' must be step sizes of 1 or more, at least one, found {value!r}")


def _name_or_positions(_: object, attribute: "attrs.Attribute[Any]", value: object) -> None:
    if isinstance(value, str):
        if value not in get_args(NamedPath):
            raise ValueError(f"'{attribute.name}' must be one of {get_args(NamedPath)} or positions, found {value!r}")
    elif not (isinstance(value, tuple) and all(type(position) is int for position in value)):
        raise ValueError(f"'{attribute.name}' must be whole numbers, found {value!r}")
    elif sorted(value) != list(range(len(value))) or not value:
        raise ValueError(
            f"'{attribute.name}' must name each position from 0 on exactly once, found {len(value)} positions, "
            f"{len(set(value))} of them different, up to {max(value, default='none')}"
        )


@attrs.frozen(kw_only=True)
class RasterOrderOptions:
    """Raster order has nothing to choose: row by row, one token a step."""


@attrs.frozen(kw_only=True)
class StepOptions:
    """How an order cuts its permutation into steps. They concern sampling alone: training does not depend on them."""

    num_steps: int | None = attrs.field(default=None, validator=optional([instance_of(int), ge(1)]))
    """Generation steps when a call names none; fewer are taken where fewer positions are unknown. None means 64, as the
    paper."""

    steps: StepCurve | tuple[int, ...] = attrs.field(
        default="cosine", converter=_sequence_as_tuple, validator=_curve_or_sizes
    )
    """The curve of the step sizes, or the sizes themselves, one for each step."""

    def __attrs_post_init__(self) -> None:
        if isinstance(self.steps, tuple) and self.num_steps not in (None, len(self.steps)):
            raise ValueError(f"'num_steps' must be left out or {len(self.steps)}, the number of the sizes in 'steps'")


@attrs.frozen(kw_only=True)
class RandomOrderOptions(StepOptions):
    """Options of the random order."""


@attrs.frozen(kw_only=True)
class CausalRandomOrderOptions(StepOptions):
    """Options of the causal random order."""


@attrs.frozen(kw_only=True)
class HaltonOrderOptions(StepOptions):
    """Options of the Halton order."""

    seeded_offset: bool = attrs.field(default=False, validator=instance_of(bool))
    """Move the sequence around the grid by an offset that each image's seed decides, instead of one order for all."""


@attrs.frozen(kw_only=True)
class ConfidenceOrderOptions(StepOptions):
    """Options of the confidence order."""

    noise: float = attrs.field(default=4.5, validator=[instance_of((int, float)), ge(0.0), attrs.validators.lt(1e6)])
    """Gumbel noise added to the confidences (log-probabilities) at the start; it falls to zero with the last step.
    0 always keeps the surest tokens, which makes pictures that are smooth and alike."""


@attrs.frozen(kw_only=True)
class FixedOrderOptions(StepOptions):
    """Options of the fixed order."""

    positions: NamedPath | tuple[int, ...] = attrs.field(
        default="centre-out", converter=_sequence_as_tuple, validator=_name_or_positions
    )
    """The path over the grid: a name, or every position once, counted from 0 row by row."""
