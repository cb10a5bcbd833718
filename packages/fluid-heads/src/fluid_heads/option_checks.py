"""Checks of option values; loads no torch."""

import math
from collections.abc import Callable
from typing import Any

import attrs


def finite_number(
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    or_none: bool = False,
) -> Callable[[Any, "attrs.Attribute[Any]", Any], None]:
    """A validator for numbers in a range. A whole number may stand for a real one; a truth value or a text may not.

    With `or_none` None is taken, too. The validator raises `TypeError` for what is no number and `ValueError` for one
    out of range, and names the option.
    """
    limits = [
        f"{word} {limit:g}"
        for word, limit in (("above", above), ("at least", at_least), ("below", below), ("at most", at_most))
        if limit is not None
    ]
    wanted = " ".join(["a finite number", " and ".join(limits)]).strip()

    def validate(_instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if or_none and value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"'{attribute.name}' must be {wanted}, found {value!r}")
        if (
            not math.isfinite(value)
            or (above is not None and value <= above)
            or (at_least is not None and value < at_least)
            or (below is not None and value >= below)
            or (at_most is not None and value > at_most)
        ):
            raise ValueError(f"'{attribute.name}' must be {wanted}, found {value!r}")

    return validate


def whole_number(*, at_least: int, or_none: bool = False) -> Callable[[Any, "attrs.Attribute[Any]", Any], None]:
    """A validator for whole numbers from `at_least` on. Truth values are none.

    With `or_none` None is taken, too. The validator raises `TypeError` for what is no whole number and `ValueError` for
    one that is too small, and names the option.
    """
    wanted = f"a whole number at least {at_least}"

    def validate(_instance: Any, attribute: "attrs.Attribute[Any]", value: Any) -> None:
        if or_none and value is None:
            return
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"'{attribute.name}' must be {wanted}, found {value!r}")
        if value < at_least:
            raise ValueError(f"'{attribute.name}' must be {wanted}, found {value!r}")

    return validate
