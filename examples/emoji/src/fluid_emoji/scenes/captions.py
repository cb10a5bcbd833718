"""From facts to an English caption and back.

The grammar is small, so that a prompt typed by a user has facts too:

    caption  = [opening] claim
    opening  = "a picture of" | "a drawing of" | "an image of" | "a photo of" | "an emoji of"
    claim    = objects | objects "and" objects | one relation one
    objects  = one | number [color] plural          "three dogs", "two red cars"
    one      = "a" | "an" [color] name              "an owl", "a blue umbrella"
    number   = "two" | "three" | "four"
    relation = ["to the"] "left of" | ["to the"] "right of" | "above" | "below"
"""

import re

import numpy as np

from fluid_core.data.facts import Facts, IncludedObjects
from fluid_core.data.shapes.captions import facts_including, related
from fluid_core.data.shapes.vocabulary import RELATIONS
from fluid_core.errors import DataError, did_you_mean
from fluid_emoji.names import article
from fluid_emoji.recoloring import COLORS
from fluid_emoji.scenes.vocabulary import SceneVocabulary

MOST_OBJECTS = 4
_NUMBERS = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4}
_NUMBER_WORDS = {2: "two", 3: "three", 4: "four"}
_OPENINGS = ("a picture of", "a drawing of", "an image of")
_OPENING = re.compile(r"(?:a picture|a drawing|an image|a photo|an emoji) of ")
_OPENING_SHARE = 0.3
_JOINT = re.compile(r" (and|above|below|(?:to the )?(?:left|right) of) ")
_EXAMPLES = '"a dog", "three bells", "a red car and a dog", "a blue fish above an owl"'


def caption_of(facts: Facts, vocabulary: SceneVocabulary, *, rng: np.random.Generator | None = None) -> str:
    """The caption that claims `facts`: in its plain form, or, with `rng`, with varied wording.

    Raises `DataError` for facts the grammar of this module can not say.
    """
    claim = _claim(facts, vocabulary, rng)
    if rng is not None and rng.random() < _OPENING_SHARE:
        return f"{_OPENINGS[int(rng.random() * len(_OPENINGS))]} {claim}"
    return claim


def _claim(facts: Facts, vocabulary: SceneVocabulary, rng: np.random.Generator | None) -> str:
    phrases = [_phrase(objects, vocabulary) for objects in facts.include]
    positions = [objects.position for objects in facts.include]
    if len(phrases) == 1 and positions == [None]:
        return phrases[0]
    if len(phrases) == 2 and positions == [None, None]:
        return f"{phrases[0]} and {phrases[1]}"
    if len(phrases) == 2 and positions[0] is None and positions[1] is not None and facts.num_objects == 2:
        relation = positions[1][0]
        if relation in RELATIONS:
            sideways = relation in ("left of", "right of")
            if sideways and rng is not None and rng.random() < 0.5:
                relation = f"to the {relation}"
            return f"{phrases[1]} {relation} {phrases[0]}"
    raise DataError(f"Captions of scenes speak of one or two groups of objects, such as {_EXAMPLES}; found {facts}.")


def parse_caption(text: str, vocabulary: SceneVocabulary) -> Facts:
    """What `text` claims. Capitals, spaces and a final full stop do not matter.

    Raises `DataError`, with examples of what is understood, for any text outside the grammar of this module.
    """
    words = " ".join(text.lower().split()).removesuffix(".").rstrip()
    parts = _JOINT.split(_OPENING.sub("", words, count=1))
    if len(parts) == 1:
        facts = facts_including((_objects(parts[0], text, vocabulary),))
    elif len(parts) == 3:
        first, joint, second = _objects(parts[0], text, vocabulary), parts[1], _objects(parts[2], text, vocabulary)
        if first.class_name == second.class_name:
            raise _not_understood(text, f"it names the {first.class_name} twice")
        if joint == "and":
            facts = facts_including((first, second))
        elif first.count > 1 or second.count > 1:
            raise _not_understood(text, "a position can be given for one object only, not for several")
        else:
            facts = related(first, joint.removeprefix("to the "), second)
    else:
        raise _not_understood(text, "it joins more than two groups of objects")
    if facts.num_objects > MOST_OBJECTS:
        raise _not_understood(text, f"it asks for {facts.num_objects} objects, more than {MOST_OBJECTS}")
    return facts


def _phrase(objects: IncludedObjects, vocabulary: SceneVocabulary) -> str:
    kind = vocabulary.by_name.get(objects.class_name)
    if kind is None or objects.count > MOST_OBJECTS:
        raise DataError(f"Captions of scenes speak of one to four known objects, found {objects}.")
    noun = kind.name if objects.count == 1 else kind.plural
    described = noun if objects.color is None else f"{objects.color} {noun}"
    return f"{_NUMBER_WORDS[objects.count] if objects.count > 1 else article(described)} {described}"


def _objects(phrase: str, text: str, vocabulary: SceneVocabulary) -> IncludedObjects:
    number, _, rest = phrase.partition(" ")
    if number not in _NUMBERS or not rest:
        raise _not_understood(text, f"'{phrase}' should begin with a, an, two, three or four")
    count = _NUMBERS[number]
    first, _, others = rest.partition(" ")
    color, noun = (first, others) if first in COLORS and others else (None, rest)
    names = vocabulary.by_name if count == 1 else vocabulary.by_plural
    kind = next((kind for name, kind in names.items() if name.lower() == noun), None)
    if kind is None:
        raise _not_understood(
            text,
            f"'{noun}' is no known {'object' if count == 1 else 'plural of an object'}."
            f"{did_you_mean(noun, names)}".rstrip("."),
        )
    if color is not None and not kind.recolorable:
        raise _not_understood(text, f"the {kind.name} is not drawn in colours of choice")
    return IncludedObjects(class_name=kind.name, count=count, color=color)


def _not_understood(text: str, problem: str) -> DataError:
    return DataError(f"Can not tell what the caption '{text}' claims: {problem}. Captions look like {_EXAMPLES}.")
