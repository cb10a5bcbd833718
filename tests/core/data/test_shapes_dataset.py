"""The data set of shapes: items that never change, tasks in balance, held-out combinations, prompts, and drawing."""

import time
from collections import Counter

import attrs
import numpy as np
import pytest
import torch

from fluid_core.data.captioned_images import CaptionedImages, JudgedPrompts
from fluid_core.data.options import ShapesOptions
from fluid_core.data.shapes.captions import parse_caption
from fluid_core.data.shapes.composition import compose, facts_for_task
from fluid_core.data.shapes.dataset import ShapesDataset, build_shapes
from fluid_core.data.shapes.drawing import coverage, draw
from fluid_core.data.shapes.held_out import HELD_OUT_PAIRS, HELD_OUT_TRIPLES, mentions_held_out, shows_held_out
from fluid_core.data.shapes.judge import judge_picture
from fluid_core.data.shapes.scene import Box, Scene, SceneObject, relations_between
from fluid_core.data.shapes.vocabulary import (
    BACKGROUND,
    COLORS,
    COMBINED,
    OPPOSITE,
    PALETTE,
    RELATIONS,
    SHAPES,
    TASKS,
)
from fluid_core.errors import ConfigurationError, DataError, InvalidRequestError
from fluid_core.exchange import DatasetContext


def shapes(side=32, split="train", seed=0, **options):
    """The data set with some options."""
    return ShapesDataset(ShapesOptions(**options), (side, side), split, seed)


@pytest.fixture(scope="module")
def drawn():
    """Two thousand training examples before drawing."""
    dataset = shapes(seed=5)
    return [dataset.example(index) for index in range(2000)]


def test_it_is_a_judged_data_set_of_pictures_in_range():
    """It keeps both protocols; pictures are float32 from -1 to 1 and of the wanted size."""
    dataset = build_shapes(ShapesOptions(), DatasetContext(image_size=(40, 40), split="train", seed=1))
    assert isinstance(dataset, CaptionedImages)
    assert isinstance(dataset, JudgedPrompts)
    item = dataset[7]
    assert item.image.shape == (3, 40, 40)
    assert item.image.dtype == torch.float32
    assert -1 <= float(item.image.min()) < -0.5 < 0.5 < float(item.image.max()) <= 1
    assert parse_caption(item.caption) == dataset.example(7).facts


def test_item_i_never_changes():
    """Built anew and asked in any order, item i is the same; it does not depend on the number of examples."""
    first, again = shapes(), shapes(num_examples=500)
    for index in (400, 0, 7, 400):
        assert torch.equal(first[index].image, again[index].image)
        assert first[index].caption == again[index].caption
    # Known values: a change here would silently change every run that is resumed.
    assert [first[index].caption for index in range(3)] == [
        "a red square above a green circle",
        "a green square and a black triangle",
        "two squares",
    ]


def test_seed_split_and_index_all_matter():
    """Examples of another seed, of the other split, or at another index are other examples."""
    datasets = [shapes(), shapes(seed=1), shapes(split="validation")]
    scenes = [dataset.example(index).scene for dataset in datasets for index in range(50)]
    assert len({repr(scene) for scene in scenes}) == len(scenes)


def test_lengths_and_bounds():
    """Each split has the number of examples its option says, and nothing beyond."""
    train, validation = (
        shapes(split=split, num_examples=30, num_validation_examples=4) for split in ("train", "validation")
    )
    assert (len(train), len(validation)) == (30, 4)
    assert len(list(validation)) == 4
    for index in (4, -1):
        with pytest.raises(IndexError, match="the examples 0 to 3, asked for"):
            validation[index]


def test_tasks_are_mixed_evenly(drawn):
    """A quarter of the captions join several facts; the six tasks share the rest. Shapes and colours are balanced."""
    tasks = Counter(one.task for one in drawn)
    assert 400 < tasks.pop(COMBINED) < 600
    assert set(tasks) == set(TASKS)
    assert all(200 < count < 300 for count in tasks.values())
    single = [one.scene.objects[0] for one in drawn if one.task in ("single_object", "colors")]
    assert min(Counter(item.shape for item in single).values()) > 80
    assert set(Counter(item.color for item in single)) == set(COLORS)
    assert shapes(combined_share=1.0).example(3).task == COMBINED
    plain, small = shapes(combined_share=0.0), shapes(max_objects=2)
    assert {plain.example(index).task for index in range(60)} == set(TASKS)
    assert max(len(small.example(index).scene.objects) for index in range(200)) == 2


@pytest.mark.parametrize("split", ["train", "validation"])
def test_training_never_shows_held_out_combinations(split):
    """Neither in a caption nor by accident in a picture, measured here anew from the objects of the scenes."""
    dataset = shapes(split=split, seed=9)
    pairs, triples = Counter(), Counter()
    for index in range(2000):
        one = dataset.example(index)
        assert not mentions_held_out(one.facts)
        pairs.update((item.color, item.shape) for item in one.scene.objects)
        for subject in one.scene.objects:
            for anchor in one.scene.objects:
                relations = relations_between(subject.box, anchor.box)
                triples.update((subject.shape, relation, anchor.shape) for relation in relations)
    assert not HELD_OUT_PAIRS & set(pairs)
    assert not HELD_OUT_TRIPLES & set(triples)
    # Everything else does occur: the held-out combinations are all that is missing.
    assert set(pairs) == {(color, shape) for color in COLORS for shape in SHAPES} - HELD_OUT_PAIRS
    different = {(one, relation, other) for one in SHAPES for relation in RELATIONS for other in SHAPES if one != other}
    assert different - set(triples) == HELD_OUT_TRIPLES


def test_held_out_combinations_leave_every_word_known():
    """Each shape, colour and relation also stands in combinations that are seen; triples come in both wordings."""
    assert len(HELD_OUT_PAIRS) == 4
    assert len(HELD_OUT_TRIPLES) == 8
    assert {shape for _, shape in HELD_OUT_PAIRS} == set(SHAPES)
    assert all((other, OPPOSITE[relation], one) in HELD_OUT_TRIPLES for one, relation, other in HELD_OUT_TRIPLES)
    for facts, expected in (("a purple circle", True), ("a circle", False), ("a red circle below a cross", False)):
        assert mentions_held_out(parse_caption(facts)) == expected
    rng = np.random.default_rng(0)
    scene = compose(parse_caption("a cross above a square"), rng=rng, avoid_held_out=False)
    assert shows_held_out(scene)
    with pytest.raises(DataError, match="Found no scene"):
        compose(parse_caption("a cross above a square"), rng=rng, avoid_held_out=True)


def test_pictures_hold_nothing_but_the_facts(drawn):
    """As many objects as the caption says, in its shapes and colours, inside the picture and clear of each other."""
    for one in drawn[:500]:
        wanted = [objects for objects in one.facts.include for _ in range(objects.count)]
        assert [item.shape for item in one.scene.objects] == [objects.class_name for objects in wanted]
        for item, objects in zip(one.scene.objects, wanted, strict=True):
            assert objects.color in (None, item.color)
            assert all(item.size / 2 <= center <= 1 - item.size / 2 for center in item.center)
        for number, first in enumerate(one.scene.objects):
            for second in one.scene.objects[:number]:
                apart = np.abs(np.subtract(first.center, second.center)).max()
                assert apart >= (first.size + second.size) / 2 + 2 / 32 - 1e-9


def test_quadrants_hold_one_object_each():
    """In that layout objects are of one size and fill quarters of the picture, all four of them in turn."""
    dataset = shapes(layout="quadrants")
    seen = set()
    for index in range(400):
        drawn = dataset.example(index)
        places = [one.center for one in drawn.scene.objects]
        assert len(set(places)) == len(places) == drawn.facts.num_objects
        assert {one.size for one in drawn.scene.objects} == {14 / 32}
        seen.update(places)
        assert judge_picture(draw(drawn.scene, 32), drawn.facts).correct
    assert seen == {(x, y) for x in (0.25, 0.75) for y in (0.25, 0.75)}


def test_evaluation_prompts_cover_every_task_and_held_out_combinations():
    """Equal numbers for each task, a quarter of three tasks held out, the same for the same seed."""
    dataset = shapes()
    prompts = dataset.evaluation_prompts(num_per_task=12, seed=3)
    assert [prompt.task for prompt in prompts] == [task for task in dataset.tasks for _ in range(12)]
    assert all(parse_caption(prompt.text) == prompt.facts for prompt in prompts)
    assert all(prompt.held_out == mentions_held_out(prompt.facts) for prompt in prompts)
    held_out = Counter(prompt.task for prompt in prompts if prompt.held_out)
    assert held_out == {"colors": 3, "position": 3, "color_attr": 3}
    assert prompts == dataset.evaluation_prompts(num_per_task=12, seed=3)
    assert prompts != dataset.evaluation_prompts(num_per_task=12, seed=4)
    assert len({prompt.text for prompt in prompts if prompt.task == "counting"}) == len(facts_for_task("counting"))
    assert len({prompt.text for prompt in prompts if prompt.task == "single_object"}) == len(SHAPES)
    for arguments in ({"num_per_task": 0, "seed": 0}, {"num_per_task": 1, "seed": -1}):
        with pytest.raises(InvalidRequestError, match="num_per_task of at least 1 and a seed of at least 0"):
            dataset.evaluation_prompts(**arguments)


def test_prompts_are_judged_by_their_facts():
    """A scene composed for a prompt is right for it and wrong for prompts of other facts."""
    dataset = shapes(side=48)
    prompts = dataset.evaluation_prompts(num_per_task=5, seed=0)
    rng = np.random.default_rng(0)
    pictures = [draw(compose(prompt.facts, rng=rng, avoid_held_out=False), 48) for prompt in prompts]
    assert all(dataset.judge(picture, prompt).correct for picture, prompt in zip(pictures, prompts, strict=True))
    shifted = zip(pictures, prompts[7:] + prompts[:7], strict=True)
    assert sum(dataset.judge(picture, prompt).correct for picture, prompt in shifted) <= 3


@pytest.mark.parametrize(
    ("image_size", "split", "seed", "problem"),
    [
        ((32, 48), "train", 0, "square pictures from 16 x 16 pixels, but the tokenizer takes 32 x 48"),
        ((8, 8), "train", 0, "the tokenizer takes 8 x 8"),
        ((32, 32), "test", 0, "the splits 'train' and 'validation', found 'test'"),
        ((32, 32), "train", -1, "must not be negative, found -1"),
    ],
)
def test_impossible_requests_are_refused(image_size, split, seed, problem):
    """Each message says what was asked for and what can be had."""
    with pytest.raises(ConfigurationError, match=problem):
        ShapesDataset(ShapesOptions(), image_size, split, seed)


def test_scenes_that_can_not_be_are_refused():
    """Unknown words and too many objects can not be composed; too small pictures can not be drawn."""
    rng = np.random.default_rng(0)
    facts = parse_caption("two circles and two squares")
    for include, problem in (
        ((attrs.evolve(facts.include[0], class_name="dog"),), "Scenes hold circle"),
        ((attrs.evolve(facts.include[0], color="pink"),), "Scenes hold circle"),
        ((attrs.evolve(facts.include[0], count=5),), "up to 4 objects, found 5"),
        ((facts.include[0], attrs.evolve(facts.include[1], position=("behind", 0))), "found 'behind'"),
    ):
        with pytest.raises(DataError, match=problem):
            compose(attrs.evolve(facts, include=include), rng=rng, avoid_held_out=False)
    with pytest.raises(DataError, match="from 16 pixels a side, found 15"):
        draw(Scene(objects=()), 15)
    with pytest.raises(DataError, match="found 'guessing'"):
        facts_for_task("guessing")


@pytest.mark.parametrize("side", [16, 33, 64, 200])
def test_outlines_have_their_ideal_area_and_place(side):
    """What is covered, in pixels, is the area of the outline; the middle of the box has the object's colour."""
    share = {"circle": np.pi / 4, "square": 1.0, "triangle": 0.5, "cross": 1 - 0.64**2}
    for shape in SHAPES:
        scene = Scene(objects=(SceneObject(shape=shape, color="blue", center=(0.4, 0.55), size=0.5),))
        picture = draw(scene, side)
        empty = draw(Scene(objects=()), side)
        full = (torch.tensor(PALETTE["blue"]) / 127.5 - 1)[:, None, None]
        covered = ((picture - empty) / (full - empty)).mean(dim=0)
        assert float(covered.mean()) == pytest.approx(share[shape] * 0.25, rel=0.02)
        assert float(covered.min()) >= -1e-6
        assert float(covered.max()) <= 1 + 1e-6
        torch.testing.assert_close(picture[:, int(0.55 * side), int(0.4 * side)], full[:, 0, 0])
        torch.testing.assert_close(picture[:, 0, 0], torch.tensor(BACKGROUND) / 127.5 - 1)


def test_outlines_past_the_border_are_cut():
    """An object half outside is drawn as far as it is inside, at each of the four borders."""
    whole = float(coverage("square", 0.0, 0.0, 16.0, 16.0).sum())
    for center in ((0.0, 0.5), (1.0, 0.5), (0.5, 0.0), (0.5, 1.0)):
        picture = draw(Scene(objects=(SceneObject(shape="square", color="black", center=center, size=0.5),)), 32)
        assert int((picture[0] < 0).sum()) == whole / 2


def test_relations_follow_from_boxes():
    """Directions by centres; two at once on a diagonal; none where centres are closer than a tenth of both sizes."""
    anchor = Box(center=(0.5, 0.5), size=(0.2, 0.2))

    def relations(x, y, **options):
        return relations_between(Box(center=(x, y), size=(0.2, 0.2)), anchor, **options)

    assert relations(0.2, 0.5) == {"left of"}
    assert relations(0.8, 0.55) == {"right of"}
    assert relations(0.5, 0.1) == {"above"}
    assert relations(0.45, 0.9) == {"below"}
    assert relations(0.1, 0.1) == {"left of", "above"}
    assert relations(0.53, 0.47) == relations(0.5, 0.5) == frozenset()
    assert relations(0.2, 0.32) == {"left of"}
    assert relations(0.2, 0.32, slack=0.1) == {"left of", "above"}


def test_an_item_is_drawn_in_half_a_millisecond():
    """Fast enough to draw while training: the best of several rounds, since machines are shared."""
    dataset = shapes()
    scenes = [dataset.example(index).scene for index in range(200)]
    rounds = []
    for _ in range(7):
        begin = time.perf_counter()
        for scene in scenes:
            draw(scene, 32)
        rounds.append((time.perf_counter() - begin) / len(scenes))
    assert min(rounds) < 0.5e-3
