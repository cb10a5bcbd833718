"""Which arguments count as numbers: those of Python and NumPy, but no truth values and no texts."""

from numbers import Integral, Real


def is_whole_number(value: object) -> bool:
    """Whether `value` is of a type of whole numbers."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_real_number(value: object) -> bool:
    """Whether `value` is of a type of real numbers; it may be infinite, or none (NaN)."""
    return isinstance(value, Real) and not isinstance(value, bool)
