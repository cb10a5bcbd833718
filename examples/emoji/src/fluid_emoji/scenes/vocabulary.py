"""The objects of scenes: everyday emoji that stay recognisable at 20 pixels, read from `objects.csv`.

The column `color` says `any` where a drawing takes every colour of the palette convincingly. Otherwise it names the
colour that the drawings of all styles plainly have, or is empty where they have several or differ.
"""

import csv
import functools
from collections.abc import Sequence
from importlib import resources

import attrs

from fluid_core.errors import ConfigurationError, did_you_mean

_ANY = "any"
_FEWEST_OBJECTS = 4
_FEWEST_RECOLORABLE = 2


@attrs.frozen(kw_only=True)
class SceneKind:
    """One kind of object."""

    name: str
    plural: str
    code_point: str
    own_color: str | None
    """The colour of its drawings where it can not be chosen; None if it can be, or if they have several."""

    recolorable: bool
    """Whether scenes show it in every colour of the palette."""


@attrs.frozen(kw_only=True)
class SceneVocabulary:
    """The kinds of objects a data set uses."""

    kinds: tuple[SceneKind, ...]

    @functools.cached_property
    def by_name(self) -> dict[str, SceneKind]:
        """The kinds by their names in the singular."""
        return {kind.name: kind for kind in self.kinds}

    @functools.cached_property
    def by_plural(self) -> dict[str, SceneKind]:
        """The kinds by their names in the plural."""
        return {kind.plural: kind for kind in self.kinds}

    @functools.cached_property
    def recolorable(self) -> tuple[SceneKind, ...]:
        """The kinds that captions give a colour."""
        return tuple(kind for kind in self.kinds if kind.recolorable)


@functools.cache
def all_kinds() -> tuple[SceneKind, ...]:
    """Every kind of `objects.csv`."""
    text = resources.files("fluid_emoji.scenes").joinpath("objects.csv").read_text(encoding="utf-8")
    return tuple(
        SceneKind(
            name=row["name"],
            plural=row["plural"],
            code_point=row["code_point"],
            own_color=row["color"] if row["color"] not in ("", _ANY) else None,
            recolorable=row["color"] == _ANY,
        )
        for row in csv.DictReader(text.splitlines())
    )


def scene_vocabulary(names: Sequence[str] = ()) -> SceneVocabulary:
    """The kinds of these names, or all of them.

    Raises `ConfigurationError` for unknown or repeated names, for fewer than four kinds, and for fewer than two that
    can be recoloured.
    """
    known = {kind.name: kind for kind in all_kinds()}
    for name in names:
        if name not in known:
            raise ConfigurationError(f"Scenes know no object '{name}'.{did_you_mean(name, known)}")
    if len(set(names)) != len(names):
        raise ConfigurationError("The option 'objects' names an object twice.")
    kinds = tuple(known[name] for name in names) or all_kinds()
    num_recolorable = sum(kind.recolorable for kind in kinds)
    if len(kinds) < _FEWEST_OBJECTS or num_recolorable < _FEWEST_RECOLORABLE:
        raise ConfigurationError(
            f"Scenes need at least {_FEWEST_OBJECTS} objects, {_FEWEST_RECOLORABLE} of them recolourable, found "
            f"{len(kinds)} and {num_recolorable}. Add names to the option 'objects', such as 'car' and 'balloon'."
        )
    return SceneVocabulary(kinds=kinds)
