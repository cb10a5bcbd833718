"""Names in plain English."""

import pytest
from fluid_emoji.names import plain_name, with_article


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("red_apple", "a red apple"),
        ("owl", "an owl"),
        ("unicorn", "a unicorn"),
        ("hourglass_done", "an hourglass"),
        ("grapes", "grapes"),
        ("octopus", "an octopus"),
        ("glasses", "glasses"),
        ("sheaf_of_rice", "a sheaf of rice"),
        ("bread", "bread"),
        ("sun", "the sun"),
        ("woman_s_hat", "a woman's hat"),
        ("one_o_clock", "a clock at one o'clock"),
        ("two_thirty", "a clock at half past two"),
        ("t_shirt", "a T-shirt"),
        ("nest with eggs", "a nest with eggs"),
    ],
)
def test_names_read_as_english(written, sentence):
    """From what emojilib writes to what a caption says."""
    assert with_article(plain_name(written)) == sentence
