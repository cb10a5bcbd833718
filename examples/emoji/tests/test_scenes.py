"""The data set `emoji-scenes`: the ground truth is true, and what is held out stays out."""

import itertools
from collections import Counter

import pytest
import torch
from fluid_emoji.made_up_emoji import MADE_UP_NAMES
from fluid_emoji.options import EmojiScenesOptions
from fluid_emoji.recoloring import COLORS, nearest_color
from fluid_emoji.scenes.captions import caption_of, parse_caption
from fluid_emoji.scenes.composition import task_of
from fluid_emoji.scenes.dataset import EmojiScenesDataset
from fluid_emoji.scenes.held_out import (
    color_is_held_out,
    count_is_held_out,
    mentions_held_out,
    pair_is_held_out,
    relation_is_held_out,
    shows_held_out,
)
from fluid_emoji.scenes.vocabulary import all_kinds

from fluid_core.data.shapes.scene import relations_between
from fluid_core.data.shapes.vocabulary import OPPOSITE, RELATIONS, TASKS
from fluid_core.errors import ConfigurationError, DataError, InvalidRequestError

NUM_EXAMPLES = 250


@pytest.fixture(scope="module")
def examples(scenes):
    """Training examples with their ground truth."""
    data = scenes()
    return [data.example(index) for index in range(NUM_EXAMPLES)]


@pytest.mark.parametrize("side", [32, 64, 100])
def test_boxes_hold_their_objects_to_the_pixel(scenes, side):
    """Outside the boxes there is only background, and every edge of every box is touched by its object."""
    data = scenes(side=side)
    for index in range(40):
        scene, image = data.scene(index), data[index].image
        background = torch.tensor(scene.background)[:, None, None] / 127.5 - 1
        differs = ((image - background).abs() > 1e-3).any(dim=0)
        for drawn in scene.objects:
            left, top, right, bottom = drawn.pixel_box(side)
            inside = differs[top:bottom, left:right]
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert bool(edge.any()), drawn
            differs[top:bottom, left:right] = False
            # The box in shares of the side is the same box, to half a pixel.
            (x, y), (width, height) = drawn.box.center, drawn.box.size
            exact = ((x - width / 2) * side, (y - height / 2) * side, (x + width / 2) * side, (y + height / 2) * side)
            assert (left, top, right, bottom) == pytest.approx(exact, abs=0.501)
        assert not bool(differs.any())


def test_objects_do_not_touch_and_lie_within_the_picture(examples):
    """Boxes have a gap between them and a border around them."""
    for example in examples:
        for drawn in example.scene.objects:
            assert min(drawn.left, drawn.top) >= 1
            assert max(drawn.left + drawn.width, drawn.top + drawn.height) <= 31
        for one, other in itertools.combinations(example.scene.objects, 2):
            apart_x = max(one.left, other.left) - min(one.left + one.width, other.left + other.width)
            apart_y = max(one.top, other.top) - min(one.top + one.height, other.top + other.height)
            assert max(apart_x, apart_y) >= 1


def test_colors_are_what_the_truth_says(scenes):
    """The typical pixel in the middle of a recoloured object is nearest to its colour in the palette."""
    data = scenes()
    seen = Counter()
    for index in range(120):
        scene, image = data.scene(index), data[index].image
        for drawn in scene.objects:
            if not drawn.recolored:
                continue
            left, top, right, bottom = drawn.pixel_box(64)
            rows, columns = (bottom - top) // 4, (right - left) // 4
            middle = image[:, top + rows : bottom - rows, left + columns : right - columns].flatten(1)
            red, green, blue = ((middle.median(dim=1).values + 1) * 127.5).tolist()
            assert nearest_color((red, green, blue)) == drawn.color
            seen[drawn.color] += 1
    assert set(seen) == set(COLORS)


def test_scenes_show_exactly_what_is_claimed(examples):
    """Objects, numbers, colours and positions (by GenEval's rule) are those of the facts, and there is nothing else."""
    assert {example.task for example in examples} == {*TASKS, "combined"}
    for example in examples:
        wanted, facts = Counter(), example.facts
        for objects in facts.include:
            wanted[objects.class_name] += objects.count
            found = [drawn for drawn in example.scene.objects if drawn.name == objects.class_name]
            if objects.color is not None:
                assert {drawn.color for drawn in found} == {objects.color}
            if objects.position is not None:
                relation, target = objects.position
                anchor_name = facts.include[target].class_name
                (anchor,) = [drawn for drawn in example.scene.objects if drawn.name == anchor_name]
                assert relation in relations_between(found[0].box, anchor.box)
        assert Counter(drawn.name for drawn in example.scene.objects) == wanted
        for excluded in facts.exclude:
            assert wanted[excluded.class_name] < excluded.count


def test_examples_belong_to_the_task_they_name(examples):
    """The form of the facts is that of the task."""
    assert [task_of(example.facts) for example in examples] == [example.task for example in examples]


def test_captions_say_the_facts(scenes, examples):
    """Reading a caption, in every wording, gives the facts it was made from."""
    vocabulary = scenes().vocabulary
    for example in examples:
        assert parse_caption(example.caption, vocabulary) == example.facts
        assert parse_caption(caption_of(example.facts, vocabulary).upper() + ".", vocabulary) == example.facts
    assert any(example.caption.startswith("a picture of ") for example in examples)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_held_out_combinations_are_never_shown(scenes, split):
    """No scene of either split says or shows one, though many could."""
    data = scenes(split)
    for index in range(NUM_EXAMPLES):
        example = data.example(index)
        assert not mentions_held_out(example.facts)
        assert not shows_held_out(example.scene)


def test_held_out_scenes_are_recognised(scenes):
    """A scene made for a held-out prompt shows what is held out: the check above is no empty one."""
    data = scenes()
    prompts = [prompt for prompt in data.evaluation_prompts(num_per_task=8, seed=3) if prompt.held_out]
    assert {prompt.task for prompt in prompts} == set(TASKS) - {"single_object"}
    for number, prompt in enumerate(prompts):
        assert shows_held_out(data.scene_for(prompt.facts, seed=number))


def test_held_out_shares_are_as_stated():
    """Over all objects about one in eight colours, counts and arrangements and one in sixteen pairs are held out.

    Each object keeps several colours, a count and most partners, and no pair loses more than one arrangement.
    """
    kinds = all_kinds()
    names = [kind.name for kind in kinds]
    colors = {
        kind.name: [color_is_held_out(kind.name, color) for color in COLORS] for kind in kinds if kind.recolorable
    }
    counts = {name: [count_is_held_out(name, count) for count in (2, 3, 4)] for name in names}
    assert 0.08 < sum(map(sum, colors.values())) / (len(colors) * len(COLORS)) < 0.18
    assert all(sum(row) <= len(COLORS) // 2 for row in colors.values())
    assert 0.06 < sum(map(sum, counts.values())) / (3 * len(counts)) < 0.2
    assert not any(count_is_held_out(name, 1) for name in names)
    pairs = list(itertools.combinations(names, 2))
    assert 0.05 < sum(pair_is_held_out(*pair) for pair in pairs) / len(pairs) < 0.075
    lost = Counter()
    for one, other in pairs:
        held = [relation for relation in RELATIONS if relation_is_held_out(one, relation, other)]
        assert len(held) <= 1
        lost.update(held)
        assert held == [relation for relation in RELATIONS if relation_is_held_out(other, OPPOSITE[relation], one)]
    assert all(0.1 < lost[relation] / len(pairs) < 0.15 for relation in RELATIONS)


def test_evaluation_prompts(scenes):
    """Each task has its prompts, all different, every fourth of them held out and marked so; the seed decides."""
    data = scenes()
    prompts = data.evaluation_prompts(num_per_task=8, seed=5)
    assert [prompt.task for prompt in prompts] == [task for task in TASKS for _ in range(8)]
    assert len({prompt.text for prompt in prompts}) == len(prompts)
    for index, prompt in enumerate(prompts):
        assert prompt.held_out == (prompt.task != "single_object" and index % 4 == 3)
        assert prompt.held_out == mentions_held_out(prompt.facts)
        assert data.prompt_from_text(prompt.text) == prompt
    assert prompts == scenes("validation", seed=9).evaluation_prompts(num_per_task=8, seed=5)
    assert prompts != data.evaluation_prompts(num_per_task=8, seed=6)
    assert {task_of(prompt.facts) for prompt in prompts} == set(TASKS)


def test_few_objects_make_scenes(scenes):
    """Counting and combined captions with as few objects as allowed still find scenes."""
    few = scenes(objects=("apple", "car", "dog", "cat"), max_objects=2, combined_share=0.5)
    for index in range(60):
        assert 1 <= len(few.scene(index).objects) <= 2


def test_objects_csv_is_sound():
    """Names, plurals and code points are all different, free of words of the grammar, and enough can be recoloured."""
    kinds = all_kinds()
    assert 60 <= len(kinds) <= 110
    assert sum(kind.recolorable for kind in kinds) >= 30
    for values in ([kind.name for kind in kinds], [kind.plural for kind in kinds], [kind.code_point for kind in kinds]):
        assert len(set(values)) == len(values)
    for kind in kinds:
        words = {*kind.name.lower().split(), *kind.plural.lower().split()}
        assert not words & {"and", "above", "below", "left", "right", "of", *COLORS}
        assert kind.code_point == kind.code_point.lower()
        assert kind.own_color is None or not kind.recolorable


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("dog", "should begin with"),
        ("a unicorn", "'unicorn' is no known object"),
        ("two dog", "no known plural"),
        ("a red dog", "not drawn in colours of choice"),
        ("a dog and a cat and a car", "more than two groups"),
        ("two dogs above a cat", "one object only"),
        ("three dogs and two cats", "more than 4"),
        ("a red car and a blue car", "twice"),
    ],
)
def test_captions_outside_the_grammar_are_explained(scenes, text, problem):
    """The message says what was not understood and what captions look like."""
    with pytest.raises(DataError, match=problem) as raised:
        scenes().prompt_from_text(text)
    assert "Captions look like" in str(raised.value)


def test_genevals_own_opening_is_understood(scenes):
    """A prompt in GenEval's words has facts."""
    prompt = scenes().prompt_from_text("a photo of a blue car and a dog")
    assert [(one.class_name, one.color) for one in prompt.facts.include] == [("car", "blue"), ("dog", None)]


def test_wrong_use_is_refused(scenes, made_up_folder):
    """Oblong and small pictures, unknown objects, objects that were not fetched, and impossible numbers."""
    options = EmojiScenesOptions(folder=str(made_up_folder), objects=MADE_UP_NAMES)
    for size in ((64, 32), (16, 16)):
        with pytest.raises(ConfigurationError, match="square pictures"):
            EmojiScenesDataset(options, size, "train", 0)
    with pytest.raises(ConfigurationError, match="Did you mean 'balloon'"):
        scenes(objects=(*MADE_UP_NAMES, "baloon"))
    with pytest.raises(ConfigurationError, match="at least 4 objects"):
        scenes(objects=("apple", "car", "dog"))
    with pytest.raises(DataError, match=r"lacks drawings .*tractor"):
        scenes(objects=(*MADE_UP_NAMES, "tractor"))
    with pytest.raises(DataError, match="in fluent"):
        scenes(styles=("fluent",))
    with pytest.raises(ValueError, match="max_objects must be a whole number from 2 to 4"):
        scenes(max_objects=5)
    for number, seed in ((0, 0), (1, -1)):
        with pytest.raises(InvalidRequestError, match="num_per_task"):
            scenes().evaluation_prompts(num_per_task=number, seed=seed)
