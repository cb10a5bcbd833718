"""Options of the built-in data sets. No torch here: the catalog and configuration files read these classes."""

from collections.abc import Callable
from typing import Any, Literal

import attrs

LARGEST_NUM_OBJECTS = 4
"""The most objects a scene of shapes may hold: more would not stay recognisable at 32 x 32 pixels."""


def _integer(smallest: int, largest: int | None = None) -> Callable[[Any, "attrs.Attribute[int]", int], None]:
    """A validator for whole numbers in a range, whose message names the option."""

    def validate(_instance: Any, attribute: "attrs.Attribute[int]", value: int) -> None:
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        if is_integer and value >= smallest and (largest is None or value <= largest):
            return
        wanted = f"at least {smallest}" if largest is None else f"from {smallest} to {largest}"
        raise ValueError(f"{attribute.name} must be a whole number {wanted}, found {value!r}")

    return validate


def _share(*, below_one: bool = False) -> Callable[[Any, "attrs.Attribute[float]", float], None]:
    """A validator for a part of a whole, from 0 to 1 (with `below_one`, something must be left over)."""

    def validate(_instance: Any, attribute: "attrs.Attribute[float]", value: float) -> None:
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if is_number and 0 <= value <= 1 and not (below_one and value == 1):
            return
        wanted = "at least 0 and below 1" if below_one else "from 0 to 1"
        raise ValueError(f"{attribute.name} must be a number {wanted}, found {value!r}")

    return validate


def _text(_instance: Any, attribute: "attrs.Attribute[str]", value: str) -> None:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{attribute.name} must be a text that is not empty, found {value!r}")


@attrs.frozen(kw_only=True)
class ShapesOptions:
    """Scenes of coloured shapes drawn on the fly, with captions. Raises `ValueError` for values out of range."""

    num_examples: int = attrs.field(default=100_000, validator=_integer(1))
    """Different scenes in the training split. Drawing takes no disk space, so many cost nothing."""

    num_validation_examples: int = attrs.field(default=2_000, validator=_integer(1))
    """Different scenes in the validation split."""

    max_objects: int = attrs.field(default=LARGEST_NUM_OBJECTS, validator=_integer(2, LARGEST_NUM_OBJECTS))
    """The most objects in one scene, and so the largest number in a counting caption."""

    layout: Literal["free", "quadrants"] = attrs.field(
        default="free", validator=attrs.validators.in_(("free", "quadrants"))
    )
    """Where objects stand: `free` is anywhere, in several sizes; `quadrants` is one to a quarter of the picture, all
    of one size, which models of few parameters learn in minutes."""

    combined_share: float = attrs.field(default=0.25, validator=_share())
    """Share of scenes whose caption joins several facts, such as "a red circle above a blue square". The six tasks
    of GenEval share the rest evenly."""


@attrs.frozen(kw_only=True)
class ImageFolderOptions:
    """A folder of pictures with a `metadata.jsonl`. Raises `ValueError` for values out of range."""

    path: str = attrs.field(validator=_text)
    """The folder that holds `metadata.jsonl`; `~` stands for the home folder."""

    caption_column: str = attrs.field(default="text", validator=_text)
    """Name of the column with the captions."""

    center_crop: bool = True
    """Cut the middle of each picture to the wanted aspect; otherwise the whole picture is stretched."""

    horizontal_flip: bool = False
    """Add a mirrored copy of every training picture. Off by default, since captions may speak of left and right."""

    validation_fraction: float = attrs.field(default=0.05, validator=_share(below_one=True))
    """Share of the pictures kept out of training, chosen by a hash of the file name."""
