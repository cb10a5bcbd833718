"""GenEval's rules, from detections to a verdict. Nothing here knows which detector or classifier was used.

A picture is right if every included group is found, in its colour and at its place, and no excluded one is. Further
objects do not count against it. Where a class was found more often than asked, the surest detections are looked at.
"""

from collections.abc import Callable, Mapping, Sequence

import attrs
import numpy as np
import numpy.typing as npt

from fluid_core.data.facts import Facts, IncludedObjects
from fluid_core.evaluation.geneval.words import COLORS, OBJECT_NAMES

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""

# Below this many pixels beyond the margin, two objects count as being at the same place.
_NO_OFFSET = 1e-3
# Share of the distance that an offset along an axis must exceed: a diagonal is two relations at once.
_LEAST_COSINE = 0.5


ORIGINAL_BACKGROUND = "original"
"""The setting `background` that leaves a picture as it is."""


@attrs.frozen(kw_only=True, eq=False)
class Detection:
    """One object that a detector saw."""

    class_name: str
    """One of `words.OBJECT_NAMES`."""

    box: Box
    score: float
    """How sure the detector is, from 0 to 1."""

    mask: npt.NDArray[np.bool_] | None = None
    """Which pixels of the picture (height, width) are the object's; None if the detector finds boxes alone."""


@attrs.frozen(kw_only=True)
class JudgeSettings:
    """GenEval's thresholds; results under others do not compare with published ones."""

    score: float = 0.3
    """Detections must be surer than this."""

    counting_score: float = 0.9
    """The same in the task `counting`."""

    max_objects: int = 16
    """Detections of one class that are looked at, the surest first."""

    max_overlap: float = 1.0
    """Overlap with a surer detection of its class (intersection over union) from which one is dropped; 1: none is."""

    position: float = 0.1
    """Share of the sum of two objects' sizes by which their centres must differ to count as apart."""

    background: str = "#999"
    """What takes the place of all but the object when its colour is judged; `original`: nothing does."""

    crop: bool = True
    """Whether the colour is judged on the object's box alone."""


Found = Mapping[str, Sequence[Detection]]
"""Detections that count, by class, the surest first."""

ColorsOf = Callable[[Sequence[Detection], str], Sequence[str]]
"""The colour of each of these detections, one of `words.COLORS`, given what the objects are called."""


@attrs.frozen(kw_only=True)
class Judgement:
    """Whether a picture is right, and what is wrong with it, one problem per line."""

    correct: bool
    reason: str


def counted_detections(detections: Sequence[Detection], task: str, settings: JudgeSettings) -> Found:
    """The detections of a picture that count for a prompt of `task`, in the order of the classes."""
    least = settings.counting_score if task == "counting" else settings.score
    found: dict[str, Sequence[Detection]] = {}
    for name in OBJECT_NAMES:
        sure = sorted(
            (one for one in detections if one.class_name == name and one.score > least),
            key=lambda one: one.score,
            reverse=True,
        )
        kept: list[Detection] = []
        for one in sure[: settings.max_objects]:
            if settings.max_overlap == 1 or all(overlap(one.box, other.box) < settings.max_overlap for other in kept):
                kept.append(one)
        if kept:
            found[name] = kept
    return found


def judge_detections(found: Found, facts: Facts, colors_of: ColorsOf, settings: JudgeSettings) -> Judgement:
    """Whether the detections that count show what `facts` ask for.

    `colors_of` is asked only about classes that were found often enough.
    """
    problems: list[str] = []
    groups: list[Sequence[Detection] | None] = []
    for objects in facts.include:
        chosen = found.get(objects.class_name, ())[: objects.count]
        problem = _problem(chosen, objects, groups, colors_of, settings)
        groups.append(None if problem else chosen)
        if problem:
            problems.append(problem)
    for excluded in facts.exclude:
        count = len(found.get(excluded.class_name, ()))
        if count >= excluded.count:
            problems.append(f"expected fewer than {excluded.count} of {excluded.class_name}, found {count}")
    return Judgement(correct=not problems, reason="\n".join(problems))


def _problem(
    chosen: Sequence[Detection],
    objects: IncludedObjects,
    groups: Sequence[Sequence[Detection] | None],
    colors_of: ColorsOf,
    settings: JudgeSettings,
) -> str:
    """What is wrong with one included group; nothing if it is all there."""
    name, count = objects.class_name, objects.count
    if len(chosen) < count:
        return f"expected {count} of {name}, found {len(chosen)}"
    if objects.color is not None:
        colors = list(colors_of(chosen, name))
        if colors.count(objects.color) < count:
            seen = ", ".join(f"{colors.count(color)} {color}" for color in COLORS if color in colors)
            return f"expected {count} {objects.color} of {name}, found {seen}"
    if objects.position is not None:
        relation, target = objects.position
        anchors = groups[target]
        if anchors is None:
            return f"expected {name} {relation} something that was not found as asked"
        for one in chosen:
            for anchor in anchors:
                held = relations_between(one.box, anchor.box, margin=settings.position)
                if relation not in held:
                    shown = " and ".join(sorted(held)) or "no clear relation"
                    return f"expected {name} {relation} {anchor.class_name}, found {shown}"
    return ""


def relations_between(subject: Box, anchor: Box, *, margin: float) -> frozenset[str]:
    """Every relation in which `subject` stands to `anchor`: none, one, or two on a diagonal.

    Per axis, the offset of the centres is shortened by `margin` times the sum of both sizes; what is left must be more
    than half of the distance between the centres.
    """
    offset = np.array([_center(subject, axis) - _center(anchor, axis) for axis in (0, 1)])
    sizes = np.array([abs(box[axis + 2] - box[axis]) for axis in (0, 1) for box in (subject, anchor)]).reshape(2, 2)
    beyond = np.maximum(np.abs(offset) - margin * sizes.sum(axis=1), 0) * np.sign(offset)
    if bool((np.abs(beyond) < _NO_OFFSET).all()):
        return frozenset()
    right, down = beyond / np.linalg.norm(offset)
    held = set()
    if abs(right) > _LEAST_COSINE:
        held.add("right of" if right > 0 else "left of")
    if abs(down) > _LEAST_COSINE:
        held.add("below" if down > 0 else "above")
    return frozenset(held)


def overlap(box: Box, other: Box) -> float:
    """Intersection over union, with edges counted as pixels that belong to the box, as GenEval counts them."""
    shared = (max(box[0], other[0]), max(box[1], other[1]), min(box[2], other[2]), min(box[3], other[3]))
    together = _area(box) + _area(other) - _area(shared)
    return _area(shared) / together if together else 0.0


def _area(box: Box) -> float:
    return max(box[2] - box[0] + 1.0, 0.0) * max(box[3] - box[1] + 1.0, 0.0)


def _center(box: Box, axis: int) -> float:
    return (box[axis] + box[axis + 2]) / 2
