"""Scenes of shapes as a data set: determinism, captions that are true, held-out combinations."""

from collections import Counter

import pytest
import torch

from fluid_core.data.captioned_images import CaptionedImages, JudgedPrompts
from fluid_core.data.options import ShapesOptions
from fluid_core.data.shapes.captions import caption_of, parse_caption
from fluid_core.data.shapes.composition import combined_facts, facts_for_task
from fluid_core.data.shapes.dataset import ShapesDataset, prompt_from_text
from fluid_core.data.shapes.facts import Facts
from fluid_core.data.shapes.held_out import HELD_OUT_PAIRS, mentions_held_out, shows_held_out
from fluid_core.data.shapes.vocabulary import TASKS
from fluid_core.errors import ConfigurationError, DataError, InvalidRequestError


def dataset(split: str = "train", side: int = 32, seed: int = 0, **options) -> ShapesDataset:
    """A data set of shapes."""
    return ShapesDataset(ShapesOptions(**options), (side, side), split, seed)


def test_it_keeps_both_contracts():
    """It is a data set, and one whose pictures can be judged."""
    data = dataset()
    assert isinstance(data, CaptionedImages)
    assert isinstance(data, JudgedPrompts)
    assert data.tasks == TASKS
    assert len(data) == 100_000
    assert len(dataset("validation")) == 2_000


def test_an_item_is_always_the_same():
    """Item i depends on seed, split and i alone; other seeds and splits hold other scenes."""
    first, again = dataset()[17], dataset()[17]
    assert first.caption == again.caption
    assert torch.equal(first.image, again.image)
    assert first.image.shape == (3, 32, 32)
    assert first.image.min() >= -1.0
    assert first.image.max() <= 1.0
    for different in (dataset(seed=1), dataset("validation")):
        captions = [different[i].caption == dataset()[i].caption for i in range(20)]
        assert not all(captions)


def test_captions_are_true():
    """What a caption says is what the scene was composed for, and the grammar reads it back."""
    data = dataset()
    for drawn in map(data.example, range(400)):
        assert parse_caption(drawn.caption) == drawn.facts
        assert len(drawn.scene.objects) == drawn.facts.num_objects


def test_every_task_occurs_about_evenly():
    """The six tasks share what the combined captions leave."""
    counts = Counter(drawn.task for drawn in map(dataset().example, range(1500)))
    assert set(counts) == {*TASKS, "combined"}
    assert abs(counts["combined"] / 1500 - 0.25) < 0.05
    for task in TASKS:
        assert abs(counts[task] / 1500 - 0.125) < 0.03


@pytest.mark.parametrize("split", ["train", "validation"])
def test_held_out_combinations_never_occur(split):
    """Neither a caption nor, by accident, a picture holds one."""
    for drawn in map(dataset(split).example, range(600)):
        assert not mentions_held_out(drawn.facts), drawn.caption
        assert not shows_held_out(drawn.scene), drawn.caption


def test_prompts_ask_for_held_out_combinations_and_say_so():
    """Every fourth prompt of three tasks does; the flag is right for all; equal arguments give equal prompts."""
    data = dataset()
    prompts = data.evaluation_prompts(num_per_task=16, seed=3)
    assert [prompt.task for prompt in prompts] == [task for task in TASKS for _ in range(16)]
    assert prompts == data.evaluation_prompts(num_per_task=16, seed=3)
    assert prompts != data.evaluation_prompts(num_per_task=16, seed=4)
    held_out = Counter(prompt.task for prompt in prompts if prompt.held_out)
    assert held_out == {"colors": 4, "position": 4, "color_attr": 4}
    for prompt in prompts:
        assert prompt.held_out == mentions_held_out(prompt.facts)
        assert parse_caption(prompt.text) == prompt.facts
    with pytest.raises(InvalidRequestError, match="num_per_task of at least 1"):
        data.evaluation_prompts(num_per_task=0, seed=0)


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("a circle", "single_object"),
        ("a circle and a square", "two_object"),
        ("three circles", "counting"),
        ("a red circle", "colors"),
        ("a circle left of a square", "position"),
        ("A circle  to the left of a square.", "position"),
        ("a red circle and a blue square", "color_attr"),
        ("a red circle above a blue square", "combined"),
        ("two red crosses and a green triangle", "combined"),
    ],
)
def test_a_prompt_of_ones_own_can_be_judged(text, task):
    """The plain forms of all tasks are understood."""
    assert prompt_from_text(text).task == task


@pytest.mark.parametrize(
    "text", ["", "a dog", "five circles", "a circle on a square", "red circle", "two circles above a square", "circles"]
)
def test_other_texts_are_refused_with_examples(text):
    """What the grammar can not say is refused, with examples of what it can."""
    with pytest.raises(DataError, match="a red circle above a blue square"):
        parse_caption(text)


def test_every_fact_has_a_caption_that_reads_back():
    """Caption and parser agree on everything that any task can ask for; facts survive JSON."""
    every = [facts for task in TASKS for facts in facts_for_task(task)]
    every += [facts for kind in combined_facts() for facts in kind[::37]]
    assert len(every) > 500
    for facts in every:
        assert parse_caption(caption_of(facts)) == facts
        assert Facts.from_json(facts.to_json()) == facts


def test_facts_have_genevals_form():
    """Keys and the excluded extra object are those of GenEval's metadata."""
    facts = parse_caption("three red circles")
    assert facts.to_json() == {
        "include": [{"class": "circle", "count": 3, "color": "red"}],
        "exclude": [{"class": "circle", "count": 4}],
    }
    placed = parse_caption("a circle above a square").to_json()["include"]
    assert placed == [{"class": "square", "count": 1}, {"class": "circle", "count": 1, "position": ["above", 0]}]


def test_impossible_requests_are_refused():
    """Sizes that can not be drawn, unknown splits and negative seeds are errors that say what to do."""
    with pytest.raises(ConfigurationError, match="square image_size"):
        ShapesDataset(ShapesOptions(), (32, 48), "train", 0)
    with pytest.raises(ConfigurationError, match="from 16 x 16 pixels"):
        dataset(side=8)
    with pytest.raises(ConfigurationError, match="splits 'train' and 'validation'"):
        dataset("test")
    with pytest.raises(ConfigurationError, match="must not be negative"):
        dataset(seed=-1)
    with pytest.raises(IndexError, match="0 to 9"):
        dataset(num_examples=10)[10]
    with pytest.raises(ValueError, match="max_objects must be a whole number from 2 to 4"):
        ShapesOptions(max_objects=7)


def test_held_out_pairs_leave_every_word_seen():
    """Each colour and shape of a held-out pair occurs in training with others."""
    seen = {(o.color, o.shape) for drawn in map(dataset().example, range(1000)) for o in drawn.scene.objects}
    assert not seen & HELD_OUT_PAIRS
    assert len(seen) == 20
