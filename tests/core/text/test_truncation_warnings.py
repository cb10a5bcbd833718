"""Texts that are cut: told one by one where a person wrote them, counted where they are captions of a data set."""

import logging

import pytest

from fluid_core.errors import PromptError
from fluid_core.text import ByteEncoder, ByteEncoderOptions, example_t5_options
from fluid_core.text.t5_encoder import build_t5_encoder
from fluid_core.text.truncation_warnings import truncations_summed_up


@pytest.fixture(params=["bytes", "t5"])
def encoder(request, tmp_path):
    """Encoders that cut prompts of more than six letters or so."""
    if request.param == "bytes":
        return ByteEncoder(ByteEncoderOptions(max_length=8, overlong="truncate", width=16))
    options = example_t5_options(tmp_path)
    return build_t5_encoder(type(options)(path=options.path, max_length=8))


@pytest.fixture(autouse=True)
def warnings(caplog):
    """What is logged."""
    with caplog.at_level(logging.WARNING, logger="fluid_core"):
        yield caplog


def test_every_call_tells_what_was_cut(encoder, warnings):
    """Each of a few prompts has its own line, however often they are encoded."""
    for _ in range(3):
        encoder.encode(["short", "a long prompt", "another long one"])
    assert len(warnings.messages) == 6
    assert all("was cut from the end." in message for message in warnings.messages)
    assert not any("counted" in message for message in warnings.messages)


def test_many_are_counted(encoder, warnings):
    """The first in full, then a line for every tenth, and the sum; afterwards each one again."""
    with truncations_summed_up(every=10) as truncations:
        for _ in range(12):
            encoder.encode(["short", "a long caption", "another long one"])
    assert (truncations.num_cut, truncations.num_texts) == (24, 36)
    first, tenth, twentieth, last = warnings.messages
    assert first.startswith("Truncated prompt 2 of 3 from ")
    assert first.endswith("was cut from the end. Further texts that are cut are counted.")
    assert tenth.startswith("Truncated 10 of 15 texts so far. Truncated prompt 3 of 3 from ")
    assert twentieth.startswith("Truncated 20 of 30 texts so far. ")
    assert last == "Truncated 24 of 36 texts in all."
    encoder.encode(["a long prompt"])
    assert len(warnings.messages) == 5
    assert warnings.messages[4].endswith("was cut from the end.")


def test_the_sum_is_told_after_an_error_too(encoder, warnings):
    """A run that stops still says how many captions it cut; where one or none was, there is nothing to add."""

    def stopped():
        encoder.encode(["a long caption", "another long one"])
        encoder.encode([" "])

    with pytest.raises(PromptError, match="empty text"), truncations_summed_up():
        stopped()
    assert warnings.messages[-1] == "Truncated 2 of 2 texts in all."
    warnings.clear()
    with truncations_summed_up():
        encoder.encode(["short"])
        encoder.encode(["a long caption"])
    assert len(warnings.messages) == 1
    assert "Further texts that are cut are counted" in warnings.messages[0]
