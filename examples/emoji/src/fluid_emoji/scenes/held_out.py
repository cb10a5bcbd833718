"""Combinations that training never shows, so that a model can be tested on what it must put together itself.

A combination is held out by a hash of its words, the same for every seed and selection of objects: one in eight of the
pairs of an object and a colour, of the pairs of an object and a number, and of the arrangements of two objects; one in
sixteen of the pairs of two objects that occur together. Both wordings of an arrangement ("a dog above a cat", "a cat
below a dog") count as one. No two objects lose more than one of their four arrangements, so that training still sees
them together from three sides.
"""

import functools
import hashlib
import itertools
from collections import Counter

from fluid_core.data.facts import Facts
from fluid_core.data.shapes.scene import relations_between
from fluid_core.data.shapes.vocabulary import OPPOSITE, RELATIONS
from fluid_emoji.scenes.scene import EmojiScene

_ONE_IN_COLORS, _ONE_IN_COUNTS, _ONE_IN_PAIRS = 8, 8, 16
# Of this many pairs of objects, four lose an arrangement, each another one.
_PAIRS_PER_ARRANGEMENTS = 8
# A relation that a judge might just see counts as shown.
_SLACK = 0.1


@functools.cache
def color_is_held_out(name: str, color: str) -> bool:
    """Whether training never shows objects of this class in this colour."""
    return _hash("color", name, color) % _ONE_IN_COLORS == 0


@functools.cache
def count_is_held_out(name: str, count: int) -> bool:
    """Whether training never shows exactly so many objects of this class. One object never is."""
    return count > 1 and _hash("count", name, str(count)) % _ONE_IN_COUNTS == 0


@functools.cache
def pair_is_held_out(name: str, other: str) -> bool:
    """Whether training never shows these two classes in one picture."""
    return _hash("together", *sorted((name, other))) % _ONE_IN_PAIRS == 0


@functools.cache
def relation_is_held_out(subject: str, relation: str, anchor: str) -> bool:
    """Whether training never shows `subject` in this relation to `anchor`."""
    if subject > anchor:
        subject, relation, anchor = anchor, OPPOSITE[relation], subject
    return _hash("relation", subject, anchor) % _PAIRS_PER_ARRANGEMENTS == RELATIONS.index(relation)


def mentions_held_out(facts: Facts) -> bool:
    """Whether a caption with these facts asks for a held-out combination."""
    for objects in facts.include:
        if objects.color is not None and color_is_held_out(objects.class_name, objects.color):
            return True
        if count_is_held_out(objects.class_name, objects.count):
            return True
        if objects.position is not None:
            relation, index = objects.position
            if relation_is_held_out(objects.class_name, relation, facts.include[index].class_name):
                return True
    names = sorted({objects.class_name for objects in facts.include})
    return any(pair_is_held_out(*pair) for pair in itertools.combinations(names, 2))


def shows_held_out(scene: EmojiScene) -> bool:
    """Whether the picture holds a held-out combination, be it mentioned in the caption or not."""
    counts = Counter(drawn.name for drawn in scene.objects)
    if any(count_is_held_out(name, count) for name, count in counts.items()):
        return True
    if any(pair_is_held_out(*pair) for pair in itertools.combinations(sorted(counts), 2)):
        return True
    for drawn in scene.objects:
        if drawn.recolored and drawn.color is not None and color_is_held_out(drawn.name, drawn.color):
            return True
    for subject, anchor in itertools.permutations(scene.objects, 2):
        # Between equal objects every relation holds one way or the other.
        if subject.name < anchor.name:
            relations = relations_between(subject.box, anchor.box, slack=_SLACK)
            if any(relation_is_held_out(subject.name, relation, anchor.name) for relation in relations):
                return True
    return False


def _hash(*words: str) -> int:
    """The same number for the same words, on every machine."""
    return int.from_bytes(hashlib.sha256("|".join(words).encode()).digest()[:8], "big")
