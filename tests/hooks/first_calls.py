"""Type checks of the first calls of every function in every test.

Annotations are checked by beartype through jaxtyping's import hook. A check takes longer than many of the functions
that are checked, and sampling calls some of them thousands of times: all checks together were most of the time of
these tests. What a function takes and returns does not change after its first calls in a test, so later ones are let
through; the next test begins anew.

`pyproject.toml` names `checked` as the type checker, and `tests/conftest.py` calls `begin_anew`.
"""

import inspect
import sys
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any

from beartype import beartype

NUM_CHECKED_CALLS = 5

_calls: Counter[tuple[str, str]] = Counter()
_let_through: list[Any] = []


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose annotations are checked at every call: jaxtyping makes two, with the names of the real one.

    One has the parameters, and one the result as well.
    """
    check: Callable[..., Any] | None = None
    place = (function.__module__, function.__qualname__)

    @wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal check
        # Most functions are called in few tests; writing the check takes longer than one check.
        check = check or beartype(function)
        _calls[place] += 1
        if _calls[place] == 2 * NUM_CHECKED_CALLS:
            _let_later_calls_through(*place)
        return check(*args, **kwargs)

    return counted


def begin_anew() -> None:
    """Check all functions again."""
    _calls.clear()
    while _let_through:
        del _let_through.pop().__no_type_check__


def _let_later_calls_through(module: str, name: str) -> None:
    """Mark a function as one that is not to be checked, if it can be found: those inside of others can not."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = inspect.getattr_static(found, part, None)
    for attribute in ("fget", "__func__"):
        found = getattr(found, attribute, found)
    while inspect.isfunction(found):
        if "__no_type_check__" not in vars(found):
            found.__no_type_check__ = True
            _let_through.append(found)
        found = getattr(found, "__wrapped__", None)
