"""Captions of shapes and the facts they claim: both ways, and in GenEval's form."""

import numpy as np
import pytest

from fluid_core.data.facts import ExcludedObjects, Facts, IncludedObjects
from fluid_core.data.shapes.captions import caption_of, facts_including, parse_caption
from fluid_core.data.shapes.composition import facts_for_task, task_of
from fluid_core.data.shapes.dataset import prompt_from_text
from fluid_core.data.shapes.vocabulary import COMBINED, TASKS
from fluid_core.errors import DataError


@pytest.mark.parametrize("task", [*TASKS, COMBINED])
def test_every_caption_is_read_back_as_its_facts(task):
    """In plain wording and in varied wording, for everything a task can ask for; the task is recognised as well."""
    rng = np.random.default_rng(0)
    every = facts_for_task(task)
    for facts in every[:: max(1, len(every) // 400)]:
        for caption in (caption_of(facts), caption_of(facts, rng=rng)):
            assert parse_caption(caption) == facts, caption
        assert task_of(facts) == task
        assert Facts.from_json(facts.to_json()) == facts


@pytest.mark.parametrize(
    ("caption", "task"),
    [
        ("a circle", "single_object"),
        ("a circle and a square", "two_object"),
        ("three circles", "counting"),
        ("a red circle", "colors"),
        ("a circle left of a square", "position"),
        ("a circle to the left of a square", "position"),
        ("a red circle and a blue square", "color_attr"),
        ("a red circle above a blue square", "combined"),
        ("three green triangles", "combined"),
        ("two red crosses and a blue square", "combined"),
        ("  A Red CIRCLE  Below a cross. ", "combined"),
    ],
)
def test_prompts_of_a_user_are_understood(caption, task):
    """Each form of the grammar belongs to its task; capitals, spaces and the full stop do not matter."""
    prompt = prompt_from_text(caption)
    assert prompt.task == task
    assert prompt.text == caption
    assert caption_of(prompt.facts).split() == caption.lower().replace("to the ", "").replace(".", "").split()


def test_wording_varies_only_with_a_generator():
    """Both ways to say left and right occur; the plain wording has the short one."""
    facts = parse_caption("a circle left of a square")
    rng = np.random.default_rng(0)
    assert caption_of(facts) == "a circle left of a square"
    assert {caption_of(facts, rng=rng) for _ in range(30)} == {
        "a circle left of a square",
        "a circle to the left of a square",
    }


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' should begin with a, two, three or four"),
        ("circle", "'circle' should begin with a, two, three or four"),
        ("a pink circle", "'pink' should be red, yellow, green, blue, purple or black"),
        ("a dog", "'dog' should be circle, square, triangle or cross"),
        ("a circles", "'circles' should be circle, square"),
        ("three circle", "'circle' should be circles, squares"),
        ("a very red circle", "a number word, a colour if wanted, and a shape"),
        ("a circle above a square and a cross", "more than two groups"),
        ("two circles above a square", "a position can be given for one object only"),
        ("a circle and a circle", "it names circles twice without a colour"),
        ("a red circle above a red circle", "it names circles twice without a colour"),
        ("three circles and two squares", "it asks for 5 objects, more than 4"),
    ],
)
def test_other_texts_are_refused_with_examples(text, problem):
    """The message quotes the text, names what is not understood and shows what is."""
    with pytest.raises(DataError) as raised:
        parse_caption(text)
    assert problem in str(raised.value)
    assert f"'{text}'" in str(raised.value)
    assert '"a red circle above a blue square"' in str(raised.value)


def test_facts_are_written_as_geneval_writes_them():
    """A position stands with the second entry and refers to the first; a counted class excludes one object more."""
    assert parse_caption("a circle left of a red square").to_json() == {
        "include": [
            {"class": "square", "count": 1, "color": "red"},
            {"class": "circle", "count": 1, "position": ["left of", 0]},
        ]
    }
    assert parse_caption("three circles").to_json() == {
        "include": [{"class": "circle", "count": 3}],
        "exclude": [{"class": "circle", "count": 4}],
    }


def test_facts_of_geneval_itself_can_be_read():
    """Classes outside our vocabulary are fine, and keys beside include and exclude are left alone."""
    row = {
        "tag": "position",
        "include": [
            {"class": "teddy bear", "count": 1},
            {"class": "dog", "count": 1, "position": ["right of", 0]},
        ],
        "prompt": "a photo of a dog right of a teddy bear",
    }
    facts = Facts.from_json(row)
    assert facts.include[1] == IncludedObjects(class_name="dog", position=("right of", 0))
    assert facts.to_json() == {"include": row["include"]}


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ({}, "a list of objects under 'include', found None"),
        ({"include": []}, "at least one object"),
        ({"include": ["circle"]}, "a list of objects under 'include'"),
        ({"include": [{"count": 1}]}, "must name its class"),
        ({"include": [{"class": "circle", "colour": "red"}]}, "found also colour"),
        ({"include": [{"class": "circle", "count": 0}]}, "whole number from 1, found 0"),
        ({"include": [{"class": "circle", "count": True}]}, "whole number from 1, found True"),
        ({"include": [{"class": "circle", "color": 3}]}, "must be a word, found 3"),
        ({"include": [{"class": "circle", "position": "above"}]}, "a relation and the index"),
        ({"include": [{"class": "circle", "position": ["above", 0]}]}, "another of the 1 included entries"),
        ({"include": [{"class": "circle"}], "exclude": [{"class": "circle", "color": "red"}]}, "found also color"),
    ],
)
def test_malformed_facts_are_refused(written, problem):
    """Each message says what was expected and what was found."""
    with pytest.raises(DataError) as raised:
        Facts.from_json(written)
    assert problem in str(raised.value)


def test_facts_without_words_are_refused():
    """Captions can not speak of unknown classes, of five objects, or of three groups."""
    circle = IncludedObjects(class_name="circle")
    for include in (
        [IncludedObjects(class_name="dog")],
        [IncludedObjects(class_name="circle", count=5)],
        [circle, circle, circle],
        [circle, IncludedObjects(class_name="cross", position=("behind", 0))],
        [circle, IncludedObjects(class_name="cross", count=2, position=("above", 0))],
    ):
        with pytest.raises(DataError, match="Captions of shapes"):
            caption_of(Facts(include=tuple(include)))


def test_counted_classes_exclude_over_all_groups():
    """Groups of one class are counted together."""
    facts = facts_including(
        [
            IncludedObjects(class_name="circle", color="red", count=2),
            IncludedObjects(class_name="circle", color="blue"),
        ]
    )
    assert facts.exclude == (ExcludedObjects(class_name="circle", count=4),)
    assert facts.num_objects == 3
