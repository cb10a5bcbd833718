"""GenEval's rules on constructed detections, task by task."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fluid_core.data.facts import ExcludedObjects, Facts, IncludedObjects
from fluid_core.evaluation.geneval.scoring import (
    Detection,
    JudgeSettings,
    counted_detections,
    judge_detections,
    overlap,
    relations_between,
)
from fluid_core.evaluation.geneval.words import COLORS, OBJECT_NAMES, RELATIONS, TASKS

SETTINGS = JudgeSettings()


def seen(name, *, score=0.95, at=(0, 0), size=(20, 20)):
    """A detection whose box has its left upper corner at `at`."""
    left, top, width, height = map(float, (*at, *size))
    return Detection(class_name=name, box=(left, top, left + width, top + height), score=score)


def no_colors(_detections, _name):
    """For tasks that must not ask about colours."""
    raise AssertionError("nobody asked for a colour")


def judged(detections, facts, task="single_object", colors=no_colors, settings=SETTINGS):
    """The verdict on detections."""
    return judge_detections(counted_detections(detections, task, settings), facts, colors, settings)


def facts_of(*include, exclude=()):
    """Facts from tuples of class and, optionally, count, colour and position."""
    keys = ("class_name", "count", "color", "position")
    return Facts(
        include=tuple(IncludedObjects(**dict(zip(keys, one, strict=False))) for one in include),
        exclude=tuple(ExcludedObjects(class_name=name, count=count) for name, count in exclude),
    )


def test_words_are_the_official_ones():
    """Eighty classes in COCO's order under GenEval's names, ten colours, six tasks."""
    assert (len(OBJECT_NAMES), len(set(OBJECT_NAMES)), len(COLORS)) == (80, 80, 10)
    assert [OBJECT_NAMES[index] for index in (0, 3, 32, 57, 62, 64, 65, 66, 79)] == [
        *("person", "motorcycle", "sports ball", "couch", "tv"),
        *("computer mouse", "tv remote", "computer keyboard", "toothbrush"),
    ]
    assert COLORS == ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
    assert len(TASKS) == 6


def test_single_object():
    """One object surer than 0.3 is enough; others beside it, of its own or another class, do not matter."""
    facts = facts_of(("dog",))
    assert judged([seen("dog", score=0.31)], facts).correct
    assert judged([seen("dog"), seen("dog", at=(50, 0)), seen("cat")], facts).correct
    assert not judged([seen("dog", score=0.3)], facts).correct
    wrong = judged([seen("cat")], facts)
    assert not wrong.correct
    assert wrong.reason == "expected 1 of dog, found 0"


def test_two_objects():
    """Both must be there, and what is missing is said of each."""
    facts = facts_of(("dog",), ("cup",))
    assert judged([seen("cup"), seen("dog")], facts, "two_object").correct
    assert judged([seen("cup")], facts, "two_object").reason == "expected 1 of dog, found 0"
    assert len(judged([], facts, "two_object").reason.splitlines()) == 2


def test_counting():
    """The number must be exact, and only detections surer than 0.9 count."""
    facts = facts_of(("cup", 2), exclude=[("cup", 3)])
    cups = [seen("cup", at=(30 * number, 0)) for number in range(4)]
    assert judged(cups[:2], facts, "counting").correct
    assert judged(cups[:1], facts, "counting").reason == "expected 2 of cup, found 1"
    for too_many in (3, 4):
        wrong = judged(cups[:too_many], facts, "counting")
        assert wrong.reason == f"expected fewer than 3 of cup, found {too_many}"
    unsure = seen("cup", score=0.9, at=(90, 0))
    assert judged([*cups[:2], unsure], facts, "counting").correct
    assert not judged([cups[0], unsure], facts, "counting").correct
    # In another task the same detections count.
    assert not judged([*cups[:2], unsure], facts, "two_object").correct


def test_at_most_sixteen_of_a_class_are_looked_at():
    """More are cut off, the least sure first."""
    cups = [seen("cup", score=0.91 + number / 1000, at=(25 * number, 0)) for number in range(20)]
    found = counted_detections(cups, "counting", SETTINGS)["cup"]
    assert [one.score for one in found] == [cups[number].score for number in range(19, 3, -1)]


def test_colors_are_judged_on_the_surest_detection():
    """A colour is asked of as many detections as the prompt wants, the surest first."""
    facts = facts_of(("car", 1, "red"))
    sure, unsure = seen("car", score=0.9), seen("car", score=0.8, at=(50, 0))
    asked = []

    def colors(detections, name):
        asked.append((list(detections), name))
        return ["red" if one is sure else "blue" for one in detections]

    assert judged([unsure, sure], facts, "colors", colors).correct
    assert asked == [([sure], "car")]
    other = [seen("car", score=0.95, at=(80, 0)), sure]
    wrong = judged(other, facts, "colors", colors)
    assert wrong.reason == "expected 1 red of car, found 1 blue"


def test_color_attribution():
    """Each object in its own colour: exchanged colours are wrong twice."""
    facts = facts_of(("car", 1, "red"), ("dog", 1, "black"))
    right, exchanged = {"car": "red", "dog": "black"}, {"car": "black", "dog": "red"}
    detections = [seen("dog"), seen("car")]
    assert judged(detections, facts, "color_attr", lambda ones, name: [right[name] for _ in ones]).correct
    wrong = judged(detections, facts, "color_attr", lambda ones, name: [exchanged[name] for _ in ones])
    assert len(wrong.reason.splitlines()) == 2


def test_several_objects_of_one_color():
    """All of the wanted number must have it."""
    facts = facts_of(("cup", 2, "pink"))
    cups = [seen("cup", score=0.9), seen("cup", score=0.8, at=(50, 0))]
    assert judged(cups, facts, "colors", lambda ones, _name: ["pink"] * len(ones)).correct
    assert judged(cups, facts, "colors", lambda _ones, _name: ["white", "pink"]).reason == (
        "expected 2 pink of cup, found 1 pink, 1 white"
    )


@pytest.mark.parametrize(
    ("relation", "at"), [("left of", (0, 60)), ("right of", (120, 60)), ("above", (60, 0)), ("below", (60, 120))]
)
def test_position(relation, at):
    """An object beside, above or below another is there, and in no other relation."""
    anchor, subject = seen("dog", at=(60, 60)), seen("cat", at=at)
    for claimed in RELATIONS:
        facts = facts_of(("dog",), ("cat", 1, None, (claimed, 0)))
        verdict = judged([anchor, subject], facts, "position")
        assert verdict.correct == (claimed == relation)
        if not verdict.correct:
            assert verdict.reason == f"expected cat {claimed} dog, found {relation}"


def test_position_needs_its_anchor():
    """Without the other object, or with it in a wrong colour, there is nothing to be left of."""
    facts = facts_of(("dog", 1, "black"), ("cat", 1, None, ("left of", 0)))
    detections = [seen("dog", at=(60, 0)), seen("cat")]
    assert judged(detections, facts, "position", lambda _ones, _name: ["black"]).correct
    wrong = judged(detections, facts, "position", lambda _ones, _name: ["white"])
    assert "was not found as asked" in wrong.reason
    assert "was not found as asked" in judged([seen("cat")], facts, "position").reason


def test_position_margin():
    """Centres must differ by more than a tenth of the sum of both sizes, and what is beyond counts against half of the
    distance.
    """
    anchor = (100.0, 100.0, 140.0, 140.0)

    def at(right, down):
        return (100.0 + right, 100.0 + down, 140.0 + right, 140.0 + down)

    # The sizes are 40 and 40, so the margin is 8 pixels.
    assert relations_between(at(8, 0), anchor, margin=0.1) == frozenset()
    assert relations_between(at(8.0009, 0), anchor, margin=0.1) == frozenset()
    # Beyond it, more than half of the offset must be left: from 16 pixels on.
    assert relations_between(at(16, 0), anchor, margin=0.1) == frozenset()
    assert relations_between(at(16.1, 0), anchor, margin=0.1) == {"right of"}
    assert relations_between(at(0, -16.1), anchor, margin=0.1) == {"above"}
    assert relations_between(at(5, 0), anchor, margin=0.0) == {"right of"}
    # A diagonal is two at once, as long as both directions are more than half of the distance.
    assert relations_between(at(-100, 100), anchor, margin=0.1) == {"left of", "below"}
    assert relations_between(at(-100, 55), anchor, margin=0.1) == {"left of"}
    assert relations_between(anchor, anchor, margin=0.1) == frozenset()


BOXES = st.tuples(*[st.floats(0, 200)] * 2, *[st.floats(1, 200)] * 2).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)


@settings(max_examples=60, deadline=None)
@given(BOXES, BOXES)
def test_relations_are_opposite_from_the_other_side(one, other):
    """Whatever one box is to another, that is the opposite of what the other is to it."""
    opposite = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
    there = relations_between(one, other, margin=0.1)
    assert relations_between(other, one, margin=0.1) == {opposite[relation] for relation in there}
    assert not there & {opposite[relation] for relation in there}


def test_exclusions():
    """An excluded class may be seen less often than the number given, and no more."""
    facts = facts_of(("dog",), exclude=[("cat", 1)])
    assert judged([seen("dog")], facts).correct
    assert judged([seen("dog"), seen("cat", score=0.2)], facts).correct
    assert judged([seen("dog"), seen("cat")], facts).reason == "expected fewer than 1 of cat, found 1"


def test_overlapping_detections_stay_unless_asked():
    """GenEval drops none; with a smaller `max_overlap` the less sure of two on one place goes."""
    twice = [seen("cup", score=0.95), seen("cup", score=0.92, at=(1, 1))]
    assert len(counted_detections(twice, "counting", SETTINGS)["cup"]) == 2
    kept = counted_detections(twice, "counting", JudgeSettings(max_overlap=0.5))["cup"]
    assert [one.score for one in kept] == [0.95]
    assert (
        len(counted_detections([twice[0], seen("cup", at=(40, 40))], "counting", JudgeSettings(max_overlap=0.5))) == 1
    )


def test_overlap_counts_pixels():
    """Boxes hold their last pixel: two of 10 x 10 that share half of it."""
    box = (0.0, 0.0, 9.0, 9.0)
    assert overlap(box, box) == 1.0
    assert overlap(box, (0.0, 5.0, 9.0, 14.0)) == pytest.approx(50 / 150)
    assert overlap(box, (30.0, 30.0, 39.0, 39.0)) == 0.0


def test_detections_are_listed_in_the_order_of_classes():
    """As the official results do, whatever the detector returned first."""
    mask = np.ones((4, 4), dtype=bool)
    detections = [
        seen("toothbrush"),
        seen("dog"),
        Detection(class_name="person", box=(0.0, 0.0, 4.0, 4.0), score=0.5, mask=mask),
    ]
    assert list(counted_detections(detections, "colors", SETTINGS)) == ["person", "dog", "toothbrush"]
