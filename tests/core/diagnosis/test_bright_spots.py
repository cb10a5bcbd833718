"""Bright spots: tokens far outside the data's range are found, with the steps they were drawn in."""

import attrs
import pytest
import torch

from fluid_core.diagnosis.bright_spots import MARGIN, diagnose_bright_spots
from fluid_core.diagnosis.finding import Verdict


def spotted(tokenized, num_pictures, *, late=True, size=1.0, order="random"):
    """Drawn pictures, in so many of which one token that was drawn late, or early, is `size` ranges outside."""
    drawn = tokenized.drawn(order=order)
    width = tokenized.real.amax(dim=(0, 1)) - tokenized.real.amin(dim=(0, 1))
    tokens = tokenized.others.clone()
    for row in range(num_pictures):
        position = int(drawn.known_before[row].argmax() if late else drawn.known_before[row].argmin())
        tokens[row, position] = tokenized.real.amax(dim=(0, 1)) + size * width
    return tokenized.drawn(tokens, order=order)


def test_the_data_itself_has_no_spots(continuous):
    """Tokens of other real pictures are inside the range of real ones and its margin."""
    finding = diagnose_bright_spots(continuous.evidence())
    assert finding.verdict is Verdict.NOT_FOUND
    assert finding.figures["real_pictures_outside"] == 0
    assert finding.figures["drawn"][0]["num_tokens_outside"] == 0
    assert finding.advice == ()


def test_normal_tokens_have_no_spots(continuous):
    """Unbounded values of twice as many pictures as the range was taken from stay within it."""
    generator = torch.Generator().manual_seed(0)
    evidence = continuous.evidence()
    real = torch.randn(64, 16, 8, generator=generator)
    drawn = attrs.evolve(evidence.drawn[0], tokens=torch.randn(128, 16, 8, generator=generator), step=None)
    evidence = attrs.evolve(evidence, real=attrs.evolve(evidence.real, tokens=real), drawn=(drawn,))
    assert diagnose_bright_spots(evidence).verdict is Verdict.NOT_FOUND


@pytest.mark.parametrize(("late", "when"), [(True, "step 16"), (False, "step 1,")])
def test_spots_are_found_in_the_steps_they_come_from(continuous, late, when):
    """Outliers in a sixth of the pictures are found, counted, and put where they were drawn."""
    finding = diagnose_bright_spots(continuous.evidence(spotted(continuous, 12, late=late)))
    assert finding.verdict is Verdict.FOUND
    (row,) = finding.figures["drawn"]
    assert row["num_pictures_affected"] == row["num_tokens_outside"] == 12
    assert row["by_third"] == ([0.0, 0.0, 1.0] if late else [1.0, 0.0, 0.0])
    assert row["farthest"] == pytest.approx(1.0, abs=1e-5)
    assert when in finding.found
    assert any("late" if late else "early" in advice for advice in finding.advice)


def test_a_few_pictures_may_be_chance_and_one_enormous_token_is_not(continuous):
    """Two pictures slightly outside are no finding; one token three ranges away is."""
    assert diagnose_bright_spots(continuous.evidence(spotted(continuous, 2))).verdict is Verdict.NOT_FOUND
    assert diagnose_bright_spots(continuous.evidence(spotted(continuous, 1, size=3.0))).verdict is Verdict.FOUND
    near = spotted(continuous, 40, size=MARGIN - 0.1)
    assert diagnose_bright_spots(continuous.evidence(near)).verdict is Verdict.NOT_FOUND


def test_advice_is_for_the_head_at_hand(continuous):
    """Options of the diffusion head are not recommended for another one."""
    evidence = continuous.evidence(spotted(continuous, 12))
    for head, expected in (("diffusion", True), (None, True), ("flow", False)):
        advice = " ".join(diagnose_bright_spots(attrs.evolve(evidence, head=head)).advice)
        assert ("token_limit" in advice) is expected


def test_where_there_is_nothing_to_look_at(continuous, discrete):
    """Ids have no range; pictures from a folder have no tokens until a model is named."""
    assert diagnose_bright_spots(discrete.evidence()).verdict is Verdict.NOT_LOOKED
    evidence = continuous.evidence()
    evidence = attrs.evolve(evidence, real=attrs.evolve(evidence.real, tokens=None), token_space=None)
    finding = diagnose_bright_spots(evidence)
    assert finding.verdict is Verdict.NOT_LOOKED
    assert "--model" in finding.found


def test_all_scales_with_spots_are_told(continuous):
    """The first in full, others by their numbers."""
    drawn = [attrs.evolve(spotted(continuous, 12), guidance=scale) for scale in (1.0, 3.0, 7.5)]
    finding = diagnose_bright_spots(continuous.evidence(*drawn))
    assert finding.where == "at guidance 1, 3 and 7.5"
    assert "Further ones at guidance 3 12 in 12 pictures; at guidance 7.5 12 in 12 pictures." in finding.found
