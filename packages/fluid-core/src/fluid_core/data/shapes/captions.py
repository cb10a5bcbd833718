"""From facts to an English caption and back.

The grammar is small on purpose, so that a prompt typed by a user can be judged too:

    caption  = objects | objects "and" objects | one relation one
    objects  = one | number [color] plural          "three circles", "two red crosses"
    one      = "a" [color] shape                    "a circle", "a blue square"
    number   = "two" | "three" | "four"
    relation = ["to the"] "left of" | ["to the"] "right of" | "above" | "below"
"""

import re
from collections import Counter
from collections.abc import Iterable

import numpy as np

from fluid_core.data.facts import ExcludedObjects, Facts, IncludedObjects
from fluid_core.data.options import LARGEST_NUM_OBJECTS
from fluid_core.data.shapes.vocabulary import COLORS, PLURALS, RELATIONS, SHAPES
from fluid_core.errors import DataError

_NUMBERS = {"a": 1, "two": 2, "three": 3, "four": 4}
_NUMBER_WORDS = {number: word for word, number in _NUMBERS.items()}
_SINGULAR_OF = {plural: shape for shape, plural in PLURALS.items()}
_JOINT = re.compile(r" (and|above|below|(?:to the )?(?:left|right) of) ")
_EXAMPLES = '"a circle", "three green triangles", "a red circle and a blue square", "a red circle above a blue square"'


def facts_including(include: Iterable[IncludedObjects]) -> Facts:
    """Facts that include these objects, with GenEval's rule that a counted class excludes one object more."""
    include = tuple(include)
    counts = Counter[str]()
    counted = set()
    for objects in include:
        counts[objects.class_name] += objects.count
        if objects.count > 1:
            counted.add(objects.class_name)
    exclude = (ExcludedObjects(class_name=name, count=counts[name] + 1) for name in counts if name in counted)
    return Facts(include=include, exclude=tuple(exclude))


def related(subject: IncludedObjects, relation: str, anchor: IncludedObjects) -> Facts:
    """Facts of "subject relation anchor". As in GenEval, the anchor stands first and the subject refers to it."""
    placed = IncludedObjects(
        class_name=subject.class_name, count=subject.count, color=subject.color, position=(relation, 0)
    )
    return facts_including((anchor, placed))


def caption_of(facts: Facts, *, rng: np.random.Generator | None = None) -> str:
    """The caption that claims `facts`: in its plain form, or, with `rng`, with varied wording.

    Raises `DataError` for facts the grammar of this module can not say.
    """
    if len(facts.include) == 1 and facts.include[0].position is None:
        return _phrase(facts.include[0])
    if len(facts.include) == 2:
        anchor, subject = facts.include
        if anchor.position is None and subject.position is None:
            return f"{_phrase(anchor)} and {_phrase(subject)}"
        if anchor.position is None and subject.position is not None and anchor.count == subject.count == 1:
            relation = subject.position[0]
            if relation not in RELATIONS:
                raise DataError(f"Captions of shapes know the relations {', '.join(RELATIONS)}; found '{relation}'.")
            sideways = relation in ("left of", "right of")
            if sideways and rng is not None and rng.random() < 0.5:
                relation = f"to the {relation}"
            return f"{_phrase(subject)} {relation} {_phrase(anchor)}"
    raise DataError(f"Captions of shapes speak of one or two groups of objects, such as {_EXAMPLES}; found {facts}.")


def parse_caption(text: str) -> Facts:
    """What `text` claims. Capitals, spaces and a final full stop do not matter.

    Raises `DataError`, with examples of what is understood, for any text outside the grammar of this module.
    """
    words = " ".join(text.lower().split()).removesuffix(".").rstrip()
    parts = _JOINT.split(words)
    if len(parts) == 1:
        facts = facts_including((_objects(parts[0], text),))
    elif len(parts) == 3:
        first, joint, second = _objects(parts[0], text), parts[1], _objects(parts[2], text)
        if first.class_name == second.class_name and (
            None in (first.color, second.color) or first.color == second.color
        ):
            raise _not_understood(
                text, f"it names {PLURALS[first.class_name]} twice without a colour to tell them apart"
            )
        if joint == "and":
            facts = facts_including((first, second))
        elif first.count > 1 or second.count > 1:
            raise _not_understood(text, "a position can be given for one object only, not for several")
        else:
            facts = related(first, joint.removeprefix("to the "), second)
    else:
        raise _not_understood(text, "it joins more than two groups of objects")
    if facts.num_objects > LARGEST_NUM_OBJECTS:
        raise _not_understood(text, f"it asks for {facts.num_objects} objects, more than {LARGEST_NUM_OBJECTS}")
    return facts


def _phrase(objects: IncludedObjects) -> str:
    if objects.class_name not in PLURALS or objects.count not in _NUMBER_WORDS:
        raise DataError(
            f"Captions of shapes speak of one to {max(_NUMBER_WORDS)} of {', '.join(SHAPES)}; found {objects}."
        )
    noun = objects.class_name if objects.count == 1 else PLURALS[objects.class_name]
    color = [] if objects.color is None else [objects.color]
    return " ".join([_NUMBER_WORDS[objects.count], *color, noun])


def _objects(phrase: str, text: str) -> IncludedObjects:
    words = phrase.split(" ")
    if words[0] not in _NUMBERS:
        raise _not_understood(text, f"'{phrase}' should begin with {_either(_NUMBERS)}")
    if len(words) not in (2, 3):
        raise _not_understood(text, f"'{phrase}' should be a number word, a colour if wanted, and a shape")
    count, noun = _NUMBERS[words[0]], words[-1]
    known = SHAPES if count == 1 else tuple(PLURALS.values())
    if noun not in known:
        raise _not_understood(text, f"'{noun}' should be {_either(known)}")
    color = words[1] if len(words) == 3 else None
    if color is not None and color not in COLORS:
        raise _not_understood(text, f"'{color}' should be {_either(COLORS)}")
    return IncludedObjects(class_name=noun if count == 1 else _SINGULAR_OF[noun], count=count, color=color)


def _either(words: Iterable[str]) -> str:
    *rest, last = words
    return f"{', '.join(rest)} or {last}"


def _not_understood(text: str, problem: str) -> DataError:
    return DataError(f"Can not tell what the caption '{text}' claims: {problem}. Captions look like {_EXAMPLES}.")
