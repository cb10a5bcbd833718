"""Which facts each task can ask for, and scenes that show wanted facts and nothing else."""

import functools
import itertools
from collections.abc import Iterator

import numpy as np

from fluid_core.data.facts import Facts, IncludedObjects
from fluid_core.data.options import LARGEST_NUM_OBJECTS
from fluid_core.data.shapes.captions import facts_including, related
from fluid_core.data.shapes.held_out import HELD_OUT_PAIRS, shows_held_out
from fluid_core.data.shapes.scene import Scene, SceneObject
from fluid_core.data.shapes.vocabulary import COLORS, COMBINED, RELATIONS, SHAPES, TASKS
from fluid_core.errors import DataError

# Places and sizes are multiples of this share of the side: outlines then begin and end on whole pixels at 32 x 32.
_STEPS_PER_SIDE = 32
# Smallest and largest size in steps, by the number of objects in the scene.
_SIZES = {1: (13, 20), 2: (10, 14), 3: (9, 12), 4: (9, 11)}
# The size in steps if every object has a quarter of the picture to itself.
_QUADRANT_SIZE = 14
_BORDER = 1
_GAP = 2
_TRIES_PER_OBJECT = 8
# A layout suits a wanted position about once in ten times.
_MOST_LAYOUTS = 2_000

_SquareBox = tuple[int, int, int]
"""Left, top and side, in steps."""


@functools.cache
def facts_for_task(task: str, max_objects: int = LARGEST_NUM_OBJECTS) -> tuple[Facts, ...]:
    """Everything that `task` can ask for in scenes of up to `max_objects`, held-out combinations included.

    The tasks are GenEval's six and `combined`. Raises `DataError` for any other.
    """
    if task == COMBINED:
        return tuple(facts for kind in combined_facts(max_objects) for facts in kind)
    if task not in TASKS:
        raise DataError(f"Shapes have the tasks {', '.join((*TASKS, COMBINED))}; found '{task}'.")
    return tuple(_facts_of_plain_task(task, max_objects))


@functools.cache
def combined_facts(max_objects: int = LARGEST_NUM_OBJECTS) -> tuple[tuple[Facts, ...], ...]:
    """What captions of several facts can ask for, by kind: colour with position, colour with number, and groups."""
    kinds = [tuple(_colored_positions()), tuple(_colored_counts(max_objects))]
    groups = tuple(_groups(max_objects))
    return (*kinds, groups) if groups else tuple(kinds)


def task_of(facts: Facts) -> str:
    """The task whose prompts have this form; `combined` if it is none of GenEval's six."""
    first = facts.include[0]
    if len(facts.include) == 1:
        if first.count > 1:
            return "counting" if first.color is None else COMBINED
        return "single_object" if first.color is None else "colors"
    placed = any(objects.position is not None for objects in facts.include)
    colors = [objects.color for objects in facts.include]
    if facts.num_objects != 2 or first.class_name == facts.include[1].class_name:
        return COMBINED
    if all(color is None for color in colors):
        return "position" if placed else "two_object"
    if not placed and None not in colors and len(set(colors)) == 2:
        return "color_attr"
    return COMBINED


def compose(facts: Facts, *, rng: np.random.Generator, avoid_held_out: bool, layout: str = "free") -> Scene:
    """Draw a scene that shows exactly `facts`: no other objects, and what the facts leave open is left to chance.

    `layout` is that of `ShapesOptions`.
    With `avoid_held_out`, nothing in it is a held-out combination, not by accident either.
    Raises `DataError` for unknown words, for more than four objects, and for facts that no scene can show.
    """
    _check_drawable(facts)
    wanted = [objects for objects in facts.include for _ in range(objects.count)]
    entries = [index for index, objects in enumerate(facts.include) for _ in range(objects.count)]
    colors = [
        objects.color if objects.color is not None else _free_color(objects.class_name, rng, avoid_held_out)
        for objects in wanted
    ]
    numbers = _uniform_numbers(rng)
    for _ in range(_MOST_LAYOUTS):
        boxes = _layout(len(wanted), numbers, layout)
        if boxes is None or not _placed(facts, entries, boxes):
            continue
        scene = _scene(wanted, colors, boxes)
        if not avoid_held_out or not shows_held_out(scene):
            return scene
    raise DataError(f"Found no scene that shows {facts}. Do its positions contradict each other, or are held out?")


def _facts_of_plain_task(task: str, max_objects: int) -> Iterator[Facts]:
    if task == "single_object":
        for shape in SHAPES:
            yield facts_including([IncludedObjects(class_name=shape)])
    elif task == "counting":
        for shape, count in itertools.product(SHAPES, range(2, max_objects + 1)):
            yield facts_including([IncludedObjects(class_name=shape, count=count)])
    elif task == "colors":
        for shape, color in itertools.product(SHAPES, COLORS):
            yield facts_including([IncludedObjects(class_name=shape, color=color)])
    for shapes in itertools.permutations(SHAPES, 2) if task in ("two_object", "position", "color_attr") else ():
        first, second = (IncludedObjects(class_name=shape) for shape in shapes)
        if task == "two_object":
            yield facts_including([first, second])
        elif task == "position":
            for relation in RELATIONS:
                yield related(first, relation, second)
        else:
            for colors in itertools.permutations(COLORS, 2):
                yield facts_including(
                    IncludedObjects(class_name=shape, color=color) for shape, color in zip(shapes, colors, strict=True)
                )


def _colored_positions() -> Iterator[Facts]:
    kinds = [IncludedObjects(class_name=shape, color=color) for shape, color in itertools.product(SHAPES, COLORS)]
    for subject, anchor in itertools.permutations(kinds, 2):
        for relation in RELATIONS:
            yield related(subject, relation, anchor)


def _colored_counts(max_objects: int) -> Iterator[Facts]:
    for shape, color, count in itertools.product(SHAPES, COLORS, range(2, max_objects + 1)):
        yield facts_including([IncludedObjects(class_name=shape, color=color, count=count)])


def _groups(max_objects: int) -> Iterator[Facts]:
    counts = [pair for pair in itertools.product(range(1, max_objects), repeat=2) if 2 < sum(pair) <= max_objects]
    for shapes in itertools.permutations(SHAPES, 2):
        for colors, pair in itertools.product(itertools.product(COLORS, repeat=2), counts):
            yield facts_including(
                IncludedObjects(class_name=shape, color=color, count=count)
                for shape, color, count in zip(shapes, colors, pair, strict=True)
            )


def _check_drawable(facts: Facts) -> None:
    for objects in facts.include:
        if objects.class_name not in SHAPES or objects.color not in (None, *COLORS):
            raise DataError(f"Scenes hold {', '.join(SHAPES)} in {', '.join(COLORS)}; found {objects}.")
        if objects.position is not None and objects.position[0] not in RELATIONS:
            raise DataError(f"Positions of shapes are {', '.join(RELATIONS)}; found '{objects.position[0]}'.")
    if facts.num_objects > LARGEST_NUM_OBJECTS:
        raise DataError(f"A scene holds up to {LARGEST_NUM_OBJECTS} objects, found {facts.num_objects}.")


def _free_color(shape: str, rng: np.random.Generator, avoid_held_out: bool) -> str:
    allowed = [color for color in COLORS if not avoid_held_out or (color, shape) not in HELD_OUT_PAIRS]
    return allowed[int(rng.random() * len(allowed))]


def _uniform_numbers(rng: np.random.Generator) -> Iterator[float]:
    """Endless numbers from 0 to 1. They are drawn in blocks: single calls would cost more than all the rest."""
    while True:
        yield from rng.random(32).tolist()


def _layout(num_objects: int, numbers: Iterator[float], layout: str) -> list[_SquareBox] | None:
    """Boxes clear of each other, or None if chance left no room for one of them."""
    draw_box = _quadrant if layout == "quadrants" else functools.partial(_box_anywhere, _SIZES[num_objects])
    boxes: list[_SquareBox] = []
    for _ in range(num_objects):
        for _ in range(_TRIES_PER_OBJECT):
            box = draw_box(numbers)
            if all(_apart(box, other) for other in boxes):
                boxes.append(box)
                break
        else:
            return None
    return boxes


def _box_anywhere(sizes: tuple[int, int], numbers: Iterator[float]) -> _SquareBox:
    smallest, largest = sizes
    size = smallest + int(next(numbers) * (largest - smallest + 1))
    room = _STEPS_PER_SIDE - 2 * _BORDER - size + 1
    return _BORDER + int(next(numbers) * room), _BORDER + int(next(numbers) * room), size


def _quadrant(numbers: Iterator[float]) -> _SquareBox:
    half, inset = _STEPS_PER_SIDE // 2, (_STEPS_PER_SIDE // 2 - _QUADRANT_SIZE) // 2
    return inset + half * int(2 * next(numbers)), inset + half * int(2 * next(numbers)), _QUADRANT_SIZE


def _apart(box: _SquareBox, other: _SquareBox) -> bool:
    left, top, size = box
    other_left, other_top, other_size = other
    return (
        left + size + _GAP <= other_left
        or other_left + other_size + _GAP <= left
        or top + size + _GAP <= other_top
        or other_top + other_size + _GAP <= top
    )


def _placed(facts: Facts, entries: list[int], boxes: list[_SquareBox]) -> bool:
    """Whether every wanted position is shown plainly: boxes clear of each other, at most half as far off the axis."""
    for entry, (left, top, size) in zip(entries, boxes, strict=True):
        position = facts.include[entry].position
        if position is None:
            continue
        relation, target = position
        for other_entry, (other_left, other_top, other_size) in zip(entries, boxes, strict=True):
            if other_entry != target:
                continue
            right_by = left + size / 2 - other_left - other_size / 2
            down_by = top + size / 2 - other_top - other_size / 2
            sideways = relation in ("left of", "right of")
            along, aside = (right_by, down_by) if sideways else (down_by, right_by)
            if relation in ("left of", "above"):
                along = -along
            if along < (size + other_size) / 2 + _GAP or abs(aside) > 0.5 * along:
                return False
    return True


def _scene(wanted: list[IncludedObjects], colors: list[str], boxes: list[_SquareBox]) -> Scene:
    return Scene(
        objects=tuple(
            SceneObject(
                shape=objects.class_name,
                color=color,
                center=((left + size / 2) / _STEPS_PER_SIDE, (top + size / 2) / _STEPS_PER_SIDE),
                size=size / _STEPS_PER_SIDE,
            )
            for objects, color, (left, top, size) in zip(wanted, colors, boxes, strict=True)
        )
    )
