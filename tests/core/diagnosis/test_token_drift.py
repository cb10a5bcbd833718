"""Drift: found where tokens are stretched, faded or shifted, at the scale where it begins and along the picture."""

import attrs
import pytest
import torch

from fluid_core.diagnosis.evidence import third_of
from fluid_core.diagnosis.finding import Verdict
from fluid_core.diagnosis.token_drift import diagnose_token_drift


def test_the_data_itself_does_not_drift(continuous, discrete):
    """Tokens of other real pictures have the spread and the means of real ones, whatever the order."""
    for tokenized in (continuous, discrete):
        finding = diagnose_token_drift(tokenized.evidence(tokenized.drawn(order="random")))
        assert finding.verdict is Verdict.NOT_FOUND
        (row,) = finding.figures["drawn"]
        assert row["spread_ratio"]["value"] == pytest.approx(1.0, abs=4 * row["spread_ratio"]["standard_error"])
        assert row["mean_shift"]["value"] < 0.2
    assert diagnose_token_drift(discrete.evidence()).figures["of"] == "mean colours of patches"


def test_guidance_that_stretches_tokens_is_found_at_its_scale(continuous):
    """Healthy at 1, slightly wider at 3, and 1.6 times as wide at 7.5: found there, and only there."""
    drawn = [
        continuous.drawn(factor * continuous.others, guidance=scale)
        for scale, factor in ((1.0, 1.0), (3.0, 1.05), (7.5, 1.6))
    ]
    finding = diagnose_token_drift(continuous.evidence(*drawn))
    assert finding.verdict is Verdict.FOUND
    assert [row["is_found"] for row in finding.figures["drawn"]] == [False, False, True]
    assert finding.figures["drawn"][2]["spread_ratio"]["value"] == pytest.approx(1.6, abs=0.1)
    assert "none at guidance 1 and 3, and there is at guidance 7.5" in finding.found
    assert finding.advice[0].startswith("Stay below guidance 7.5")


def test_drift_at_every_scale_is_not_put_down_to_guidance(continuous):
    """Tokens that lost their spread without guidance: the model itself is to blame."""
    drawn = [continuous.drawn(0.5 * continuous.others, guidance=scale) for scale in (1.0, 7.5)]
    finding = diagnose_token_drift(continuous.evidence(*drawn))
    assert finding.verdict is Verdict.FOUND
    assert "at guidance 1 it is not guidance" in finding.found
    assert finding.advice[0].startswith("Train longer")


def test_drift_that_guidance_hides_is_the_models_own(continuous):
    """Faded at 1 and right at 7.5, as a model that was trained briefly: nobody can stay below guidance 1."""
    drawn = [continuous.drawn(f * continuous.others, guidance=scale) for scale, f in ((1.0, 0.6), (7.5, 1.0))]
    finding = diagnose_token_drift(continuous.evidence(*drawn))
    assert finding.where == "at guidance 1"
    assert not any("Stay below" in advice for advice in finding.advice)


def test_a_shift_of_the_mean_is_found(continuous):
    """All tokens brighter by half a standard deviation."""
    shifted = continuous.others + 0.5 * continuous.real.flatten(0, 1).std(dim=0)
    finding = diagnose_token_drift(continuous.evidence(continuous.drawn(shifted)))
    assert finding.verdict is Verdict.FOUND
    assert finding.figures["drawn"][0]["mean_shift"]["value"] == pytest.approx(0.5, abs=0.15)


def test_drift_along_the_picture_is_told(continuous):
    """Tokens that grow as more of the picture is known: the last third is wider than the first."""
    drawn = continuous.drawn(order="random")
    factor = 1.0 + 1.2 * third_of(drawn.known_before)[:, :, None]
    finding = diagnose_token_drift(continuous.evidence(continuous.drawn(factor * continuous.others, order="random")))
    assert finding.verdict is Verdict.FOUND
    widths = [part["spread_ratio"]["value"] for part in finding.figures["drawn"][0]["by_third"]]
    assert widths[0] == pytest.approx(1.0, abs=0.2)
    assert widths[0] < widths[1] < widths[2]
    assert "along the picture" in finding.found


def test_ids_are_judged_by_the_colours_they_stand_for(discrete):
    """Ids that all decode to one bright code: colours lose their spread."""
    tokens = torch.full_like(discrete.others, int(discrete.real[0, 0]))
    finding = diagnose_token_drift(discrete.evidence(discrete.drawn(tokens)))
    assert finding.verdict is Verdict.FOUND
    assert "Colours of patches" in finding.found


def test_two_pictures_are_not_enough(continuous):
    """What two odd pictures show by chance is no finding."""
    drawn = continuous.drawn()
    one = attrs.evolve(drawn, pictures=drawn.pictures[:1], tokens=drawn.tokens[:1] * 3, known_before=None, step=None)
    assert diagnose_token_drift(continuous.evidence(one)).verdict is Verdict.NOT_FOUND
