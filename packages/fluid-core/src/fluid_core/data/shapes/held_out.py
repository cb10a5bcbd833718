"""Combinations that training never shows, so that a model can be tested on what it must put together itself.

They are fixed for every seed, so that results compare: four of the 24 pairs of colour and shape, and four of the 24
arrangements of two different shapes (each can be said from either side, which makes eight triples). Every shape and
every relation is seen in other combinations.
"""

from fluid_core.data.facts import Facts
from fluid_core.data.shapes.scene import Scene, relations_between
from fluid_core.data.shapes.vocabulary import OPPOSITE

HELD_OUT_PAIRS = frozenset({("purple", "circle"), ("black", "square"), ("blue", "triangle"), ("yellow", "cross")})
"""Pairs of colour and shape."""

_ARRANGEMENTS = (
    ("square", "left of", "triangle"),
    ("cross", "left of", "circle"),
    ("triangle", "above", "circle"),
    ("cross", "above", "square"),
)

HELD_OUT_TRIPLES = frozenset(_ARRANGEMENTS) | frozenset(
    (anchor, OPPOSITE[relation], subject) for subject, relation, anchor in _ARRANGEMENTS
)
"""Triples of shape, relation, shape, each in both wordings."""

# Shows of a relation that a judge might just see count as shown.
_SLACK = 0.1


def mentions_held_out(facts: Facts) -> bool:
    """Whether the caption asks for a held-out pair or triple."""
    for objects in facts.include:
        if (objects.color, objects.class_name) in HELD_OUT_PAIRS:
            return True
        if objects.position is not None:
            relation, index = objects.position
            if (objects.class_name, relation, facts.include[index].class_name) in HELD_OUT_TRIPLES:
                return True
    return False


def shows_held_out(scene: Scene) -> bool:
    """Whether the picture holds a held-out pair or triple, be it mentioned in the caption or not."""
    if any((drawn.color, drawn.shape) in HELD_OUT_PAIRS for drawn in scene.objects):
        return True
    for subject in scene.objects:
        for anchor in scene.objects:
            if subject.shape == anchor.shape:
                continue
            relations = relations_between(subject.box, anchor.box, slack=_SLACK)
            if any((subject.shape, relation, anchor.shape) in HELD_OUT_TRIPLES for relation in relations):
                return True
    return False
