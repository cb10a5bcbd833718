"""What each task can ask for, and scenes that show wanted facts and nothing else."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np

from fluid_core.data.facts import Facts, IncludedObjects
from fluid_core.data.shapes.captions import facts_including, related
from fluid_core.data.shapes.vocabulary import COMBINED, RELATIONS, TASKS
from fluid_core.errors import ConfigurationError, DataError
from fluid_emoji.backgrounds import BACKGROUNDS, PALE_BACKGROUNDS
from fluid_emoji.recoloring import COLORS
from fluid_emoji.scenes.captions import MOST_OBJECTS
from fluid_emoji.scenes.held_out import color_is_held_out, mentions_held_out, shows_held_out
from fluid_emoji.scenes.scene import STEPS_PER_SIDE, EmojiScene, SceneEmoji
from fluid_emoji.scenes.vocabulary import SceneKind, SceneVocabulary
from fluid_emoji.sprites import SpriteStore

# Smallest and largest longer side in steps, by the number of objects in the scene.
_SIZES = {1: (17, 25), 2: (12, 15), 3: (10, 13), 4: (10, 12)}
_BORDER = 1
_GAP = 1
_TRIES_PER_OBJECT = 8
_MOST_LAYOUTS = 3_000
_MOST_FACTS = 5_000
# How far of 255 a background may be from the colour it is named after.
_TINT = 4
# Equal objects whose colour is left open share one more often than not.
_SAME_COLOR_SHARE = 0.6

_Value = TypeVar("_Value")

_Box = tuple[int, int, int, int]
"""Left, top, width and height, in steps."""


class _Chance:
    """Numbers from one generator, drawn in blocks: single calls would cost more than all the rest."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._numbers = _uniform_numbers(rng)

    def below(self, count: int) -> int:
        return int(next(self._numbers) * count)

    def share(self) -> float:
        return next(self._numbers)


def sample_facts(
    task: str, vocabulary: SceneVocabulary, rng: np.random.Generator, *, max_objects: int, held_out: bool
) -> Facts:
    """Facts of `task` by chance: with a held-out combination, or without any.

    The tasks are GenEval's six and `combined`. Raises `DataError` for any other, and `ConfigurationError` if there are
    none of the wanted sort with these objects; `single_object` has nothing to hold out.
    """
    if task not in (*TASKS, COMBINED):
        raise DataError(f"Scenes have the tasks {', '.join((*TASKS, COMBINED))}; found '{task}'.")
    chance = _Chance(rng)
    for _ in range(_MOST_FACTS):
        facts = _facts(task, vocabulary, chance, max_objects)
        if mentions_held_out(facts) == held_out:
            return facts
    sort = "held-out combination" if held_out else "combination that is not held out"
    raise ConfigurationError(f"The task {task} has no {sort} of these objects. Add names to the option 'objects'.")


def _facts(task: str, vocabulary: SceneVocabulary, chance: _Chance, max_objects: int) -> Facts:
    if task == COMBINED:
        subtask = chance.below(3)
        if subtask == 0:
            kind = _pick(vocabulary.recolorable, chance)
            return facts_including([_included(kind, chance, count=2 + chance.below(max_objects - 1), colored=True)])
        if subtask == 1 and max_objects > 2:
            first, second = _pick_two(vocabulary.kinds, chance)
            count = 1 + chance.below(max_objects - 1)
            most = max_objects - count
            other = 2 + chance.below(most - 1) if count == 1 and most > 1 else 1 + chance.below(most)
            return facts_including([_included(first, chance, count=count), _included(second, chance, count=other)])
        subject, anchor = _pick_two(vocabulary.recolorable, chance)
        relation = RELATIONS[chance.below(len(RELATIONS))]
        return related(_included(subject, chance, colored=True), relation, _included(anchor, chance, colored=True))
    if task == "single_object":
        return facts_including([_included(_pick(vocabulary.kinds, chance), chance)])
    if task == "counting":
        count = 2 + chance.below(max_objects - 1)
        return facts_including([_included(_pick(vocabulary.kinds, chance), chance, count=count)])
    if task == "colors":
        return facts_including([_included(_pick(vocabulary.recolorable, chance), chance, colored=True)])
    if task == "color_attr":
        first, second = _pick_two(vocabulary.recolorable, chance)
        colors = _pick_two(COLORS, chance)
        return facts_including(
            IncludedObjects(class_name=kind.name, color=color)
            for kind, color in zip((first, second), colors, strict=True)
        )
    first, second = _pick_two(vocabulary.kinds, chance)
    if task == "two_object":
        return facts_including([_included(first, chance), _included(second, chance)])
    return related(_included(first, chance), RELATIONS[chance.below(len(RELATIONS))], _included(second, chance))


def _included(kind: SceneKind, chance: _Chance, *, count: int = 1, colored: bool = False) -> IncludedObjects:
    color = COLORS[chance.below(len(COLORS))] if colored else None
    return IncludedObjects(class_name=kind.name, count=count, color=color)


def _pick(values: Sequence[SceneKind], chance: _Chance) -> SceneKind:
    return values[chance.below(len(values))]


def _pick_two(values: Sequence[_Value], chance: _Chance) -> tuple[_Value, _Value]:
    """Two different ones, in either order."""
    first, second = chance.below(len(values)), chance.below(len(values) - 1)
    return values[first], values[second + (second >= first)]


def task_of(facts: Facts) -> str:
    """The task whose prompts have this form; `combined` if it is none of GenEval's six."""
    first = facts.include[0]
    if len(facts.include) == 1:
        if first.count > 1:
            return "counting" if first.color is None else COMBINED
        return "single_object" if first.color is None else "colors"
    if facts.num_objects != 2:
        return COMBINED
    placed = any(objects.position is not None for objects in facts.include)
    colors = [objects.color for objects in facts.include]
    if colors == [None, None]:
        return "position" if placed else "two_object"
    if not placed and None not in colors and colors[0] != colors[1]:
        return "color_attr"
    return COMBINED


def compose(
    facts: Facts,
    vocabulary: SceneVocabulary,
    sprites: SpriteStore,
    *,
    styles: Sequence[str],
    rng: np.random.Generator,
    avoid_held_out: bool,
) -> EmojiScene:
    """A scene that shows exactly `facts`: no other objects, and what the facts leave open is left to chance.

    With `avoid_held_out`, nothing in it is a held-out combination, not by accident either. Raises `DataError` for
    unknown words, for more than four objects, and for facts that no scene can show.
    """
    chance = _Chance(rng)
    kinds = [_known_kind(objects, vocabulary) for objects in facts.include for _ in range(objects.count)]
    if len(kinds) > MOST_OBJECTS:
        raise DataError(f"A scene holds up to {MOST_OBJECTS} objects, found {len(kinds)}.")
    entries = [index for index, objects in enumerate(facts.include) for _ in range(objects.count)]
    style = styles[chance.below(len(styles))]
    proportions = [sprites.size(kind.code_point, style) for kind in kinds]
    colors = _colors(facts, vocabulary, chance, avoid_held_out)
    background = _background(chance)
    for _ in range(_MOST_LAYOUTS):
        boxes = _layout(proportions, chance)
        if boxes is None or not _placed(facts, entries, boxes):
            continue
        scene = EmojiScene(
            objects=tuple(
                SceneEmoji(
                    name=kind.name,
                    code_point=kind.code_point,
                    color=color,
                    recolored=kind.recolorable,
                    left=box[0],
                    top=box[1],
                    width=box[2],
                    height=box[3],
                )
                for kind, color, box in zip(kinds, colors, boxes, strict=True)
            ),
            style=style,
            background=background,
        )
        if not avoid_held_out or not shows_held_out(scene):
            return scene
    raise DataError(f"Found no scene that shows {facts}. Do its positions contradict each other, or are held out?")


def _known_kind(objects: IncludedObjects, vocabulary: SceneVocabulary) -> SceneKind:
    kind = vocabulary.by_name.get(objects.class_name)
    if kind is None or (objects.color is not None and not (kind.recolorable and objects.color in COLORS)):
        raise DataError(f"Scenes do not hold {objects}: see scenes/objects.csv for objects and their colours.")
    if objects.position is not None and objects.position[0] not in RELATIONS:
        raise DataError(f"Positions in scenes are {', '.join(RELATIONS)}; found '{objects.position[0]}'.")
    return kind


def _colors(facts: Facts, vocabulary: SceneVocabulary, chance: _Chance, avoid_held_out: bool) -> list[str | None]:
    """A colour for each object, in the order of the facts."""
    colors: list[str | None] = []
    for objects in facts.include:
        kind = vocabulary.by_name[objects.class_name]
        if objects.color is not None or not kind.recolorable:
            colors += [objects.color or kind.own_color] * objects.count
            continue
        free = [color for color in COLORS if not avoid_held_out or not color_is_held_out(kind.name, color)]
        same = chance.share() < _SAME_COLOR_SHARE
        drawn = [free[chance.below(len(free))] for _ in range(objects.count)]
        colors += [drawn[0]] * objects.count if same else drawn
    return colors


def _background(chance: _Chance) -> tuple[int, int, int]:
    color = BACKGROUNDS[PALE_BACKGROUNDS[chance.below(len(PALE_BACKGROUNDS))]]
    red, green, blue = (min(max(value - _TINT + chance.below(2 * _TINT + 1), 0), 255) for value in color)
    return red, green, blue


def _layout(proportions: Sequence[tuple[int, int]], chance: _Chance) -> list[_Box] | None:
    """Boxes clear of each other, or None if chance left no room for one of them."""
    smallest, largest = _SIZES[len(proportions)]
    boxes: list[_Box] = []
    for width, height in proportions:
        for _ in range(_TRIES_PER_OBJECT):
            size = smallest + chance.below(largest - smallest + 1)
            longer = max(width, height)
            columns, rows = max(1, round(size * width / longer)), max(1, round(size * height / longer))
            left = _BORDER + chance.below(STEPS_PER_SIDE - 2 * _BORDER - columns + 1)
            top = _BORDER + chance.below(STEPS_PER_SIDE - 2 * _BORDER - rows + 1)
            box = (left, top, columns, rows)
            if all(_apart(box, other) for other in boxes):
                boxes.append(box)
                break
        else:
            return None
    return boxes


def _apart(box: _Box, other: _Box) -> bool:
    return (
        box[0] + box[2] + _GAP <= other[0]
        or other[0] + other[2] + _GAP <= box[0]
        or box[1] + box[3] + _GAP <= other[1]
        or other[1] + other[3] + _GAP <= box[1]
    )


def _placed(facts: Facts, entries: Sequence[int], boxes: Sequence[_Box]) -> bool:
    """Whether every wanted position is shown plainly: boxes clear of each other, at most half as far off the axis."""
    for entry, box in zip(entries, boxes, strict=True):
        position = facts.include[entry].position
        if position is None:
            continue
        relation, target = position
        sideways = relation in ("left of", "right of")
        sign = -1 if relation in ("left of", "above") else 1
        for other_entry, other in zip(entries, boxes, strict=True):
            if other_entry != target:
                continue
            right_by = box[0] + box[2] / 2 - other[0] - other[2] / 2
            down_by = box[1] + box[3] / 2 - other[1] - other[3] / 2
            along, aside = (right_by, down_by) if sideways else (down_by, right_by)
            reach = (box[2] + other[2]) / 2 if sideways else (box[3] + other[3]) / 2
            if sign * along < reach + _GAP or abs(aside) > 0.5 * abs(along):
                return False
    return True


def _uniform_numbers(rng: np.random.Generator) -> Iterator[float]:
    while True:
        yield from rng.random(32).tolist()
