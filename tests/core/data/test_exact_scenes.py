"""The judge of exact scenes on constructed objects; what shapes make of it is tested with the shapes."""

import pytest

from fluid_core.data.exact_scenes import SceneWords, SeenObject, judge_seen
from fluid_core.data.facts import ExcludedObjects, Facts, IncludedObjects
from fluid_core.data.shapes.scene import Box

WORDS = SceneWords(plurals={"fox": "foxes", "car": "cars"}, feature="kind")


def seen(name, color=None, at=(0.5, 0.5)):
    """An object a fifth as wide and high as the picture."""
    return SeenObject(class_name=name, color=color, box=Box(center=at, size=(0.2, 0.2)))


def verdict(objects, *include, exclude=()):
    """The verdict on objects, given the entries of the facts."""
    return judge_seen(objects, Facts(include=tuple(include), exclude=tuple(exclude)), WORDS)


def one_fox(**claims):
    """One fox, and what is claimed of it."""
    return IncludedObjects(class_name="fox", **claims)


def test_exactly_what_is_claimed_is_right():
    """Objects without colours that captions speak of may be anything; plurals are those of the words."""
    assert verdict([seen("fox")], one_fox()).correct
    two = verdict([seen("fox"), seen("fox", at=(0.1, 0.1))], one_fox(count=2))
    assert two.correct
    assert two.reason == "found 2 foxes, as asked"


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ([], "expected 1 fox, found none; the picture shows no object"),
        ([seen("fox"), seen("car", "red")], "expected no cars, found 1; the picture shows 1 fox, 1 red car"),
        (
            [seen("fox"), seen(None)],
            "found 1 object of unclear kind; the picture shows 1 object of unclear kind, 1 fox",
        ),
        ([seen(None, "red")], "found 1 object of unclear kind (red); the picture shows 1 red object of unclear kind"),
    ],
)
def test_anything_else_is_wrong(objects, reason):
    """What is missing, what is too much, and what nobody can name."""
    assert verdict(objects, one_fox()).reason == reason


def test_colors_and_places_are_found_in_any_assignment():
    """Which of two cars is the one claimed to be red and below is up to the judge; exchanged, it is wrong."""
    red, blue = seen("car", "red", at=(0.5, 0.8)), seen("car", "blue", at=(0.5, 0.2))
    anchor = IncludedObjects(class_name="car", color="blue")
    below = IncludedObjects(class_name="car", color="red", position=("below", 0))
    above = IncludedObjects(class_name="car", color="red", position=("above", 0))
    assert verdict([red, blue], anchor, below).correct
    assert "expected the red car above the blue car, found it below" in verdict([blue, red], anchor, above).reason
    assert "expected 2 red cars" in verdict([red, blue], IncludedObjects(class_name="car", count=2, color="red")).reason


def test_positions_of_objects_without_colors_are_described():
    """No gap where a colour would stand."""
    facts = (one_fox(), IncludedObjects(class_name="car", position=("left of", 0)))
    reason = verdict([seen("fox", at=(0.2, 0.5)), seen("car", at=(0.8, 0.5))], *facts).reason
    assert "expected the car left of the fox, found it right of" in reason


def test_exclusions_count():
    """Fewer than the excluded number may be there."""
    two = IncludedObjects(class_name="car", count=2)
    cars = [seen("car", at=(0.2, 0.2)), seen("car", at=(0.8, 0.8))]
    assert verdict(cars, two, exclude=[ExcludedObjects(class_name="car", count=3)]).correct
    assert "fewer than 2 cars" in verdict(cars, two, exclude=[ExcludedObjects(class_name="car", count=2)]).reason
