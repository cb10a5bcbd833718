"""Options of the two data sets, and the words they are made of. No torch here: listing components reads this."""

from collections.abc import Callable
from typing import Any

import attrs
from attrs.validators import in_

STYLES = ("noto", "twemoji", "fluent")
"""The drawing styles, by the names of their folders."""

CATEGORIES = (
    "Activities",
    "Animals & Nature",
    "Food & Drink",
    "Objects",
    "Travel & Places",
    "Smileys & Emotion",
)
"""What is fetched, by Unicode's names of the groups."""

_OBJECTS = tuple(category for category in CATEGORIES if category != "Smileys & Emotion")
_DRAWN_FLAT = ("noto", "twemoji")


def _whole_number(smallest: int, largest: int | None = None) -> Callable[[Any, "attrs.Attribute[int]", int], None]:
    """A validator whose message names the option."""

    def validate(_instance: Any, attribute: "attrs.Attribute[int]", value: int) -> None:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or value < smallest or (largest is not None and value > largest):
            wanted = f"at least {smallest}" if largest is None else f"from {smallest} to {largest}"
            raise ValueError(f"{attribute.name} must be a whole number {wanted}, found {value!r}")

    return validate


def _share(_instance: Any, attribute: "attrs.Attribute[float]", value: float) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value < 1:
        raise ValueError(f"{attribute.name} must be a number from 0 to below 1, found {value!r}")


def _some_of(words: tuple[str, ...]) -> Callable[[Any, "attrs.Attribute[Any]", tuple[str, ...]], None]:
    """A validator for a list of different words out of `words`, at least one of them."""

    def validate(_instance: Any, attribute: "attrs.Attribute[Any]", value: tuple[str, ...]) -> None:
        is_list = isinstance(value, tuple) and len(value) > 0 and len(set(value)) == len(value)
        if not is_list or not set(value) <= set(words):
            raise ValueError(f"{attribute.name} must name some of {', '.join(words)}, each once; found {value!r}")

    return validate


@attrs.frozen(kw_only=True)
class EmojiOptions:
    """Single pictures with captions. Raises `ValueError` for values out of range."""

    folder: str = ""
    """Where `python -m fluid_emoji.fetch` put the pictures; empty: the cache folder it uses by default."""

    styles: tuple[str, ...] = attrs.field(default=STYLES, validator=_some_of(STYLES))
    """Drawing styles to show."""

    categories: tuple[str, ...] = attrs.field(default=_OBJECTS, validator=_some_of(CATEGORIES))
    """Groups of emoji to show; by default everything that was fetched but faces."""

    num_examples: int = attrs.field(default=100_000, validator=_whole_number(1))
    """Different pictures in the training split: drawings with their variations of place, size and background."""

    num_validation_examples: int = attrs.field(default=2_000, validator=_whole_number(1))
    """Different pictures in the validation split."""

    validation_fraction: float = attrs.field(default=0.1, validator=_share)
    """Share of the emoji that training never shows."""

    split_by: str = attrs.field(default="emoji", validator=in_(("emoji", "drawing")))
    """`emoji`: all styles of an emoji are on one side, so that validation shows things never seen in any drawing.
    `drawing`: every style of an emoji is put on a side of its own, so that validation asks for known things in a style
    they were never seen in."""


@attrs.frozen(kw_only=True)
class EmojiScenesOptions:
    """Composed scenes with ground truth. Raises `ValueError` for values out of range."""

    folder: str = ""
    """Where `python -m fluid_emoji.fetch` put the pictures; empty: the cache folder it uses by default."""

    styles: tuple[str, ...] = attrs.field(default=_DRAWN_FLAT, validator=_some_of(STYLES))
    """Drawing styles; all objects of one scene are drawn in the same."""

    objects: tuple[str, ...] = ()
    """Names of the objects to use, such as `["car", "dog"]`; empty: all of `scenes/objects.csv`."""

    num_examples: int = attrs.field(default=100_000, validator=_whole_number(1))
    """Different scenes in the training split."""

    num_validation_examples: int = attrs.field(default=2_000, validator=_whole_number(1))
    """Different scenes in the validation split."""

    max_objects: int = attrs.field(default=4, validator=_whole_number(2, 4))
    """The most objects in one scene, and so the largest number in a counting caption."""

    combined_share: float = attrs.field(default=0.2, validator=_share)
    """Share of scenes whose caption joins several facts, such as "two red cars". The six tasks share the rest."""
