"""Checks of prompts that all text encoders share."""

import logging

import pytest

from fluid_core.errors import PromptError
from fluid_core.text.prompts import check_prompts, report_overlong


def test_prompts_pass_unchanged():
    """Good prompts, in any script, come back as they are, spaces included."""
    prompts = [" a red circle", "ein blaues Quadrat", "緑の三角形", "🟥 above 🔵"]
    assert check_prompts(prompts) == prompts
    assert check_prompts(tuple(prompts)) == prompts


@pytest.mark.parametrize("empty", ["", "   ", "\n\t", "\u3000"])
def test_empty_prompts_are_named(empty: str):
    """A prompt of nothing or only white space is refused, with its place in the list."""
    with pytest.raises(PromptError, match="prompt 2 of 3 to say something, found an empty text"):
        check_prompts(["a", empty, "b"])
    with pytest.raises(PromptError, match="Expected the prompt to say something"):
        check_prompts([empty])


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ("a red circle", r"found one string 'a red circle'. Put it in a list: \[prompt\]"),
        ([], "at least one prompt, found none"),
        (["a", 7], "prompt 2 of 2 to be a string, found int: 7"),
        ([None], "the prompt to be a string, found NoneType"),
        (["half \ud83d"], "the prompt to be valid Unicode text"),
    ],
)
def test_what_is_not_a_list_of_texts_is_refused(prompts, message: str):
    """Single strings, empty lists, other types and broken text each have their own message."""
    with pytest.raises(PromptError, match=message):
        check_prompts(prompts)


def test_overlong_prompts_are_refused_with_both_lengths():
    """The error says how long the prompt is, how long it may be, and what to do; long ones are shortened in it."""
    with pytest.raises(PromptError) as caught:
        report_overlong(
            "x" * 500, "prompt 1 of 2", length=500, limit=126, unit="bytes", overlong="error", cut="x" * 374
        )
    message = str(caught.value)
    assert "prompt 1 of 2 to have at most 126 bytes, found 500" in message
    assert "Shorten it, or choose overlong = 'truncate' among the options" in message
    assert len(message) < 300


def test_truncation_is_logged_with_what_was_cut(caplog: pytest.LogCaptureFixture):
    """The warning repeats the words that the encoder does not see."""
    with caplog.at_level(logging.WARNING, logger="fluid_core"):
        report_overlong(
            "a dog on a hill", "the prompt", length=15, limit=5, unit="bytes", overlong="truncate", cut=" on a hill"
        )
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert caplog.messages == ["Truncated the prompt from 15 to 5 bytes: ' on a hill' was cut from the end."]
