"""GenEval's file of prompts, and its scores."""

import json

import pytest

from fluid_core.errors import DataError
from fluid_core.evaluation.geneval.prompts import parse_prompt, read_prompts
from fluid_core.evaluation.geneval.summary import summary, what_differs_from_the_official
from fluid_core.evaluation.geneval.words import TASKS


def test_prompts_are_read_line_by_line(metadata):
    """Task, text and facts, and the line itself as it stands in the file."""
    prompts = read_prompts(metadata)
    assert [prompt.task for prompt in prompts] == ["single_object", "counting", "color_attr"]
    assert [prompt.line for prompt in prompts] == metadata.read_text().splitlines()
    assert prompts[1].facts.exclude[0].count == 3
    assert prompts[2].facts.include[1].color == "brown"


def line(**changes):
    """A line of the metadata, somehow changed."""
    record = {"tag": "position", "prompt": "a photo of a cat left of a dog"}
    record["include"] = [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}]
    return json.dumps(record | changes)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "no valid JSON"),
        ("[]", "expected a JSON object"),
        (line(prompt=" "), "under 'prompt'"),
        (line(tag="poses"), "one of the tags"),
        (line(include=[]), "at least one object"),
        (line(include=[{"class": "dogs"}]), "Did you mean 'dog'"),
        (line(include=[{"class": "dog", "color": "teal"}]), "knows the colors"),
        (line(include=[{"class": "dog"}, {"class": "cat", "position": ["near", 0]}]), "knows the positions"),
        (line(include=[{"class": "cat", "position": ["above", 1]}, {"class": "dog"}]), "an entry before its own"),
    ],
)
def test_other_lines_are_refused_with_their_place(text, problem):
    """The message names file and line."""
    with pytest.raises(DataError, match=problem) as raised:
        parse_prompt(text, "file.jsonl, line 7")
    assert "file.jsonl, line 7" in str(raised.value)


def test_a_missing_file_says_where_it_comes_from(tmp_path):
    """Nothing is downloaded: the message names the repository that has it."""
    with pytest.raises(DataError, match="djghosh13/geneval"):
        read_prompts(tmp_path / "none.jsonl")
    (tmp_path / "blank.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="blank lines"):
        read_prompts(tmp_path / "blank.jsonl")


def results(**correct):
    """One result per verdict, given by task."""
    return [
        {"tag": task, "correct": verdict, "metadata": f"{task} {number // 2}"}
        for task, verdicts in correct.items()
        for number, verdict in enumerate(verdicts)
    ]


def test_the_score_is_the_mean_of_the_tasks():
    """A task with many pictures counts no more than one with few."""
    found = summary(results(single_object=[True] * 8, counting=[True, False], position=[False, False]))
    assert found["by_task"]["counting"] == {"score": 0.5, "num_correct": 1, "num_pictures": 2}
    assert found["overall"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["correct_pictures"] == pytest.approx(9 / 12)
    assert found["prompts_with_a_correct_picture"] == pytest.approx(5 / 6)
    assert found["num_prompts"] == 6


def test_what_keeps_a_score_from_comparing_is_said():
    """Missing tasks, another number of prompts, another number of pictures."""
    notes = what_differs_from_the_official(results(counting=[True] * 3))
    assert len(notes) == 3
    assert "colors" in notes[0]
    official = [
        {"tag": task, "correct": False, "metadata": f"{task} {number}"}
        for task, count in zip(TASKS, (80, 99, 80, 94, 100, 100), strict=True)
        for number in range(count)
        for _ in range(4)
    ]
    assert what_differs_from_the_official(official) == []
    with pytest.raises(DataError, match="at least one"):
        summary([])
