"""What a caption claims, in the form of GenEval's metadata (arXiv 2310.11513): objects to include and to exclude.

Nothing here knows about shapes: the classes hold GenEval's own prompts as well.
"""

from collections.abc import Mapping
from typing import Any

import attrs

from fluid_core.errors import DataError


def _positive(_instance: Any, attribute: "attrs.Attribute[int]", value: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise DataError(f"The {attribute.name} of objects must be a whole number from 1, found {value!r}.")


@attrs.frozen(kw_only=True)
class IncludedObjects:
    """`count` objects of one class that a picture must show. Raises `DataError` if `count` is below 1."""

    class_name: str
    count: int = attrs.field(default=1, validator=_positive)
    color: str | None = None
    """None: any colour will do, and several objects may differ in it."""

    position: tuple[str, int] | None = None
    """`(relation, index)`: where these objects are, seen from those of `include[index]`."""


@attrs.frozen(kw_only=True)
class ExcludedObjects:
    """A picture must show fewer than `count` objects of this class. Raises `DataError` if `count` is below 1."""

    class_name: str
    count: int = attrs.field(default=1, validator=_positive)


@attrs.frozen(kw_only=True)
class Facts:
    """All that a caption claims. Raises `DataError` if nothing is included or a position points nowhere."""

    include: tuple[IncludedObjects, ...]
    exclude: tuple[ExcludedObjects, ...] = ()

    def __attrs_post_init__(self) -> None:
        if not self.include:
            raise DataError("Facts must include at least one object, found none.")
        for index, objects in enumerate(self.include):
            if objects.position is None:
                continue
            target = objects.position[1]
            if not 0 <= target < len(self.include) or target == index:
                raise DataError(
                    f"The position of include[{index}] must refer to another of the {len(self.include)} included "
                    f"entries, found index {target}."
                )

    @property
    def num_objects(self) -> int:
        """How many objects are included altogether."""
        return sum(objects.count for objects in self.include)

    def to_json(self) -> dict[str, Any]:
        """The dictionary GenEval writes: `include` and `exclude`, entries with `class`, `count`, `color`, `position`.

        Like there, `exclude` is left out when empty, and so are a colour and a position that are not claimed.
        """
        include = []
        for objects in self.include:
            entry: dict[str, Any] = {"class": objects.class_name, "count": objects.count}
            if objects.color is not None:
                entry["color"] = objects.color
            if objects.position is not None:
                entry["position"] = list(objects.position)
            include.append(entry)
        written: dict[str, Any] = {"include": include}
        if self.exclude:
            written["exclude"] = [{"class": objects.class_name, "count": objects.count} for objects in self.exclude]
        return written

    @classmethod
    def from_json(cls, written: Mapping[str, Any]) -> "Facts":
        """Read what `to_json` or GenEval wrote; keys such as `tag` and `prompt` are left to the caller.

        Raises `DataError` for a missing key, an unknown key of an entry, or a value of a wrong kind.
        """
        return cls(
            include=tuple(_included(entry) for entry in _entries(written, "include")),
            exclude=tuple(_excluded(entry) for entry in _entries(written, "exclude")) if "exclude" in written else (),
        )


def _entries(written: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    entries = written.get(key)
    if not isinstance(entries, (list, tuple)) or not all(isinstance(entry, Mapping) for entry in entries):
        raise DataError(f"Facts must have a list of objects under '{key}', found {entries!r}.")
    return list(entries)


def _class_name(entry: Mapping[str, Any], allowed: tuple[str, ...]) -> str:
    unknown = sorted(str(key) for key in set(entry) - set(allowed))
    if unknown:
        raise DataError(f"An entry of facts may have the keys {', '.join(allowed)}; found also {', '.join(unknown)}.")
    name = entry.get("class")
    if not isinstance(name, str) or not name:
        raise DataError(f"An entry of facts must name its class, found {dict(entry)!r}.")
    return name


def _included(entry: Mapping[str, Any]) -> IncludedObjects:
    name = _class_name(entry, ("class", "count", "color", "position"))
    color, position = entry.get("color"), entry.get("position")
    if color is not None and not isinstance(color, str):
        raise DataError(f"The color of an object must be a word, found {color!r}.")
    if position is not None:
        is_pair = isinstance(position, (list, tuple)) and len(position) == 2
        if not is_pair or not isinstance(position[0], str) or not isinstance(position[1], int):
            raise DataError(f"A position must be a relation and the index of an entry, found {position!r}.")
        position = (position[0], position[1])
    return IncludedObjects(class_name=name, count=entry.get("count", 1), color=color, position=position)


def _excluded(entry: Mapping[str, Any]) -> ExcludedObjects:
    return ExcludedObjects(class_name=_class_name(entry, ("class", "count")), count=entry.get("count", 1))
