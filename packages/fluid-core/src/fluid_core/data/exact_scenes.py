"""Decides whether the objects seen in a picture are exactly those that a caption claims, so placed, and nothing else.

GenEval (arXiv 2310.11513) asks only that the included objects are there. Composed scenes hold nothing but what their
captions say, so here a further object is a mistake as well.
"""

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import attrs

from fluid_core.data.captioned_images import Verdict
from fluid_core.data.facts import Facts, IncludedObjects
from fluid_core.data.shapes.scene import Box, relations_between


@attrs.frozen(kw_only=True)
class SeenObject:
    """An object in a picture."""

    class_name: str | None
    """None if it is something, and nobody can say what."""

    color: str | None
    """None if it has none that captions speak of."""

    box: Box
    """In shares of the picture's width and height."""


@attrs.frozen(kw_only=True)
class SceneWords:
    """How reasons speak of objects."""

    plurals: Mapping[str, str]
    """The plural of each class; its order is that in which problems are looked for."""

    feature: str
    """What is unclear about an object without a class, such as `shape`."""


Assignment = tuple[tuple[SeenObject, ...], ...]


def judge_seen(seen: Sequence[SeenObject], facts: Facts, words: SceneWords) -> Verdict:
    """Whether the objects seen are exactly those that `facts` claim. The classes of `facts` must be among the words."""
    scene = _Described(tuple(seen), words)
    unclear = [one for one in seen if one.class_name is None]
    if unclear:
        color = "" if unclear[0].color is None else f" ({unclear[0].color})"
        return scene.wrong(f"found {scene.several(len(unclear), None)}{color}")
    counts = Counter(one.class_name for one in seen)
    wanted = Counter[str]()
    for objects in facts.include:
        wanted[objects.class_name] += objects.count
    for name in dict.fromkeys((*wanted, *words.plurals)):
        if counts[name] != wanted[name]:
            return scene.wrong(f"expected {scene.several(wanted[name], name)}, found {counts[name] or 'none'}")
    for excluded in facts.exclude:
        if counts[excluded.class_name] >= excluded.count:
            return scene.wrong(f"expected fewer than {scene.several(excluded.count, excluded.class_name)}")
    colored = [one for one in _assignments(tuple(seen), facts) if _colors_hold(one, facts)]
    if not colored:
        claimed = (scene.several(one.count, one.class_name, one.color) for one in facts.include)
        return scene.wrong(f"expected {' and '.join(claimed)}")
    failures = [_failed_position(assignment, facts) for assignment in colored]
    if None not in failures:
        return scene.wrong(str(failures[0]))
    return Verdict(correct=True, reason=f"found {scene.in_words()}, as asked")


def _assignments(seen: tuple[SeenObject, ...], facts: Facts) -> Iterator[Assignment]:
    """Every way to give each entry of `include` its objects, by class and number only."""

    def rest(entries: tuple[IncludedObjects, ...], free: tuple[SeenObject, ...]) -> Iterator[Assignment]:
        if not entries:
            yield ()
            return
        fitting = [one for one in free if one.class_name == entries[0].class_name]
        for chosen in itertools.combinations(fitting, entries[0].count):
            left_over = tuple(one for one in free if not any(one is taken for taken in chosen))
            for others in rest(entries[1:], left_over):
                yield (chosen, *others)

    return rest(facts.include, seen)


def _colors_hold(assignment: Assignment, facts: Facts) -> bool:
    return all(
        objects.color is None or all(one.color == objects.color for one in chosen)
        for chosen, objects in zip(assignment, facts.include, strict=True)
    )


def _failed_position(assignment: Assignment, facts: Facts) -> str | None:
    for chosen, objects in zip(assignment, facts.include, strict=True):
        if objects.position is None:
            continue
        relation, target = objects.position
        for one, other in itertools.product(chosen, assignment[target]):
            held = relations_between(one.box, other.box)
            if relation not in held:
                shown = f"found it {' and '.join(sorted(held))}" if held else "found them too close to tell"
                return f"expected the {_named(one)} {relation} the {_named(other)}, {shown}"
    return None


def _named(one: SeenObject) -> str:
    return f"{one.color or ''} {one.class_name}".strip()


@attrs.frozen
class _Described:
    """What a picture shows, in words."""

    seen: tuple[SeenObject, ...]
    words: SceneWords

    def wrong(self, problem: str) -> Verdict:
        return Verdict(correct=False, reason=f"{problem}; the picture shows {self.in_words()}")

    def in_words(self) -> str:
        """The objects: "1 red circle, 2 blue squares"."""
        kinds = Counter((one.color or "", one.class_name or "") for one in self.seen)
        words = (self.several(count, name or None, color) for (color, name), count in sorted(kinds.items()))
        return ", ".join(words) or "no object"

    def several(self, count: int, name: str | None, color: str | None = None) -> str:
        """A number with its noun: "1 circle", "3 blue squares", "no circles"."""
        if name is None:
            noun = f"object{'' if count == 1 else 's'} of unclear {self.words.feature}"
        else:
            noun = name if count == 1 else self.words.plurals[name]
        return " ".join(part for part in (str(count or "no"), color, noun) if part)
