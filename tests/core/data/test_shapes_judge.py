"""The judge of shapes: it accepts true pictures and rejects those with one fact changed, ragged ones included."""

import itertools

import attrs
import numpy as np
import pytest
import torch
from scipy import ndimage

from fluid_core.data.facts import ExcludedObjects, Facts, IncludedObjects
from fluid_core.data.options import ShapesOptions
from fluid_core.data.shapes.captions import caption_of, facts_including, parse_caption
from fluid_core.data.shapes.composition import compose
from fluid_core.data.shapes.dataset import ShapesDataset
from fluid_core.data.shapes.detection import find_objects
from fluid_core.data.shapes.drawing import draw
from fluid_core.data.shapes.judge import judge_picture
from fluid_core.data.shapes.scene import Scene, SceneObject
from fluid_core.data.shapes.vocabulary import COLORS, SHAPES
from fluid_core.errors import DataError

NUM_SCENES = 200
SIDES = (32, 64)
CHANGES = ("shape", "color", "count", "relation", "attributes")


def recolored(scene, facts, colors):
    """`scene` with the objects of each entry of `facts` in the colour given for it."""
    wanted = [color for color, objects in zip(colors, facts.include, strict=True) for _ in range(objects.count)]
    return attrs.evolve(
        scene, objects=tuple(attrs.evolve(one, color=color) for one, color in zip(scene.objects, wanted, strict=True))
    )


def changed(kind, scene, facts, rng):
    """`scene` with one fact of `facts` changed, or None if `facts` claim nothing of this kind."""
    index = int(rng.integers(len(scene.objects)))
    chosen = scene.objects[index]
    if kind == "shape":
        other = rng.choice([shape for shape in SHAPES if shape != chosen.shape])
        objects = (*scene.objects[:index], attrs.evolve(chosen, shape=str(other)), *scene.objects[index + 1 :])
        return attrs.evolve(scene, objects=objects)
    if kind == "color" and all(objects.color for objects in facts.include):
        other = rng.choice([color for color in COLORS if color != chosen.color])
        objects = (*scene.objects[:index], attrs.evolve(chosen, color=str(other)), *scene.objects[index + 1 :])
        return attrs.evolve(scene, objects=objects)
    if kind == "count":
        step = 1 if len(scene.objects) == 1 or (len(scene.objects) < 4 and rng.random() < 0.5) else -1
        if step < 0:
            return attrs.evolve(scene, objects=scene.objects[:index] + scene.objects[index + 1 :])
        fewer = tuple(attrs.evolve(objects, position=None) for objects in facts.include)
        more = (attrs.evolve(fewer[0], count=fewer[0].count + 1), *fewer[1:])
        return compose(Facts(include=more), rng=rng, avoid_held_out=False)
    positions = [objects.position for objects in facts.include if objects.position]
    if kind == "relation" and positions:
        axis = 0 if positions[0][0] in ("left of", "right of") else 1
        mirrored = [
            tuple(1 - value if number == axis else value for number, value in enumerate(one.center))
            for one in scene.objects
        ]
        objects = zip(scene.objects, mirrored, strict=True)
        return attrs.evolve(scene, objects=tuple(attrs.evolve(one, center=center) for one, center in objects))
    colors = [objects.color for objects in facts.include]
    if kind == "attributes" and len(colors) == 2 and None not in colors and colors[0] != colors[1]:
        return recolored(scene, facts, colors[::-1])
    return None


@pytest.fixture(scope="module")
def examples():
    """Training examples of every task."""
    dataset = ShapesDataset(ShapesOptions(combined_share=0.3), (32, 32), "train", 11)
    return [dataset.example(index) for index in range(5 * NUM_SCENES)]


@pytest.mark.parametrize("side", SIDES)
def test_true_scenes_are_accepted(examples, side):
    """At least 99 % of pictures are found to show what their captions say."""
    verdicts = [judge_picture(draw(one.scene, side), one.facts) for one in examples[:NUM_SCENES]]
    wrong = [verdict.reason for verdict in verdicts if not verdict.correct]
    assert len(wrong) <= 0.01 * len(verdicts), wrong


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("kind", CHANGES)
def test_scenes_with_one_fact_changed_are_rejected(examples, kind, side):
    """At least 99 % of the pictures in which one thing differs from the caption are found wrong."""
    rng = np.random.default_rng(3)
    scenes = ((one.facts, changed(kind, one.scene, one.facts, rng)) for one in examples)
    judged = list(itertools.islice(((facts, scene) for facts, scene in scenes if scene), NUM_SCENES))
    accepted = [caption_of(facts) for facts, scene in judged if judge_picture(draw(scene, side), facts).correct]
    assert len(judged) == NUM_SCENES
    assert len(accepted) <= 0.01 * NUM_SCENES, accepted


def ragged(picture, rng):
    """A picture as a small model paints it: edges shifted about, values off, and a few specks."""
    side = picture.shape[-1]
    shifts = ndimage.gaussian_filter(rng.normal(size=(2, side, side)), (0, 1.5, 1.5)) * 2.4 * side / 32
    places = np.indices((side, side)) + shifts
    image = np.stack([ndimage.map_coordinates(channel, places, order=1, mode="nearest") for channel in picture.numpy()])
    image += rng.normal(scale=0.12, size=image.shape)
    for _ in range(3):
        row, column = rng.integers(side - 2, size=2)
        image[:, row : row + 2, column : column + 1] = rng.uniform(-1, 1, size=(3, 1, 1))
    return torch.from_numpy(image.astype(np.float32))


@pytest.mark.parametrize("side", SIDES)
def test_ragged_pictures_are_judged_as_people_would(examples, side):
    """Ragged edges, noise and specks change few verdicts of true pictures, and make no false picture right."""
    rng = np.random.default_rng(4)
    verdicts = [judge_picture(ragged(draw(one.scene, side), rng), one.facts) for one in examples[:NUM_SCENES]]
    wrong = [verdict.reason for verdict in verdicts if not verdict.correct]
    assert len(wrong) <= 0.05 * len(verdicts), wrong
    scenes = [(one.facts, changed(kind, one.scene, one.facts, rng)) for one in examples[:60] for kind in CHANGES]
    false = [judge_picture(ragged(draw(scene, side), rng), facts).correct for facts, scene in scenes if scene]
    assert len(false) > 150
    assert sum(false) <= 0.01 * len(false)


def test_found_objects_match_the_scene(examples):
    """Shape, colour, centre and size of every object are found, from top to bottom."""
    for one in examples[:100]:
        found = find_objects(draw(one.scene, 64))
        drawn = sorted(one.scene.objects, key=lambda item: (item.center[1], item.center[0]))
        assert sorted((item.color, item.shape) for item in found) == sorted((item.color, item.shape) for item in drawn)
        for item in found:
            near = min(drawn, key=lambda other: np.hypot(*np.subtract(other.center, item.box.center)))
            assert (item.color, item.shape) == (near.color, near.shape)
            np.testing.assert_allclose(item.box.center, near.center, atol=1.5 / 64)
            np.testing.assert_allclose(item.box.size, near.size, atol=2.5 / 64)
            assert item.overlap > 0.75


def test_half_faded_colors_are_still_recognised():
    """A colour may be paler than in the palette, as long as it is nearer to it than to the background."""
    scene = Scene(objects=(SceneObject(shape="circle", color="green", center=(0.5, 0.5), size=0.5),))
    picture, empty = draw(scene, 32), draw(Scene(objects=()), 32)
    assert judge_picture(0.7 * picture + 0.3 * empty, parse_caption("a green circle")).correct
    assert not judge_picture(0.3 * picture + 0.7 * empty, parse_caption("a green circle")).correct


@pytest.mark.parametrize(
    ("caption", "wanted", "reason"),
    [
        ("a red circle", "two circles", "expected 2 circles, found 1"),
        ("a red circle", "a square", "expected 1 square, found none"),
        ("a red circle and a blue square", "a circle", "expected no squares, found 1"),
        ("a red circle", "a blue circle", "expected 1 blue circle; the picture shows 1 red circle"),
        (
            "a red circle above a blue square",
            "a circle below a square",
            "red circle below the blue square, found it above",
        ),
        (
            "a red circle above a blue square",
            "a red circle and a blue square",
            "found 1 blue square, 1 red circle, as asked",
        ),
    ],
)
def test_the_verdict_says_why(caption, wanted, reason):
    """The reason names what was expected and what the picture shows."""
    scene = compose(parse_caption(caption), rng=np.random.default_rng(0), avoid_held_out=False)
    verdict = judge_picture(draw(scene, 48), parse_caption(wanted))
    assert reason in verdict.reason
    assert verdict.correct == ("as asked" in reason)


def test_objects_of_one_class_are_assigned_in_any_order():
    """With two circles, the one of the wanted colour has to stand at the wanted place."""
    upper = SceneObject(shape="circle", color="red", center=(0.5, 0.25), size=0.3)
    lower = SceneObject(shape="circle", color="blue", center=(0.5, 0.75), size=0.3)
    picture = draw(Scene(objects=(lower, upper)), 32)
    assert judge_picture(picture, parse_caption("a red circle above a blue circle")).correct
    assert judge_picture(picture, parse_caption("a blue circle below a red circle")).correct
    assert not judge_picture(picture, parse_caption("a blue circle above a red circle")).correct
    assert judge_picture(picture, parse_caption("two circles")).correct
    assert not judge_picture(picture, parse_caption("two red circles")).correct


def test_empty_noisy_and_broken_pictures_show_nothing():
    """A blank picture, pure noise, one grey and NaN are wrong for every caption, and say so."""
    blank = draw(Scene(objects=()), 32)
    noise = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    facts = parse_caption("a red circle")
    assert "the picture shows no object" in judge_picture(blank, facts).reason
    for picture in (blank, noise, torch.zeros(3, 32, 32), -torch.ones(3, 32, 32)):
        assert not judge_picture(picture, facts).correct
    broken = blank.clone()
    broken[0, 3, 4] = float("nan")
    assert "NaN" in judge_picture(broken, facts).reason
    with pytest.raises(DataError, match="NaN or infinite"):
        find_objects(broken)


def test_a_blob_has_no_shape():
    """A long bar, and a ring of pixels, resemble no outline closely enough."""
    bar = draw(Scene(objects=()), 32)
    bar[:, 10:15, 4:28] = draw(
        Scene(objects=(SceneObject(shape="square", color="red", center=(0.5, 0.5), size=1.0),)), 32
    )[:, 10:15, 4:28]
    assert [one.shape for one in find_objects(bar)] == [None]
    assert "unclear shape" in judge_picture(bar, parse_caption("a square")).reason


def test_excluded_objects_and_unknown_words():
    """`exclude` bounds the number from above; words outside the vocabulary are an error, not a wrong picture."""
    two = compose(parse_caption("two squares"), rng=np.random.default_rng(1), avoid_held_out=False)
    allowed = facts_including([IncludedObjects(class_name="square", count=2)])
    forbidden = attrs.evolve(allowed, exclude=(ExcludedObjects(class_name="square", count=2),))
    assert judge_picture(draw(two, 32), allowed).correct
    assert "fewer than 2 squares" in judge_picture(draw(two, 32), forbidden).reason
    for unknown in (
        IncludedObjects(class_name="dog"),
        IncludedObjects(class_name="circle", color="pink"),
        IncludedObjects(class_name="circle", position=("behind", 0)),
    ):
        with pytest.raises(DataError, match="judge of shapes knows"):
            judge_picture(draw(two, 32), Facts(include=(IncludedObjects(class_name="square"), unknown)))
