"""Codebook collapse: of the tokenizer, whose codes are dead, and of the model, whose ids have no variety."""

import math

import attrs
import pytest
import torch

from fluid_core.diagnosis.codebook_use import diagnose_codebook_use, perplexities
from fluid_core.diagnosis.finding import Verdict
from fluid_core.token_space import DiscreteTokens


def test_the_data_itself_uses_its_codebook(discrete):
    """A codebook fitted on the pictures is used by them, and by other real pictures alike."""
    finding = diagnose_codebook_use(discrete.evidence(real_ids=torch.cat([discrete.real, discrete.others])))
    assert finding.verdict is Verdict.NOT_FOUND
    assert finding.figures["tokenizer"]["num_used"] > 32
    assert finding.figures["drawn"][0]["perplexity_ratio"]["value"] == pytest.approx(1.0, abs=0.2)


def test_dead_codes_are_found(discrete):
    """A codebook of 4096 of which the data use 64 or fewer."""
    large = DiscreteTokens(grid=discrete.tokenizer.token_space.grid, vocabulary_size=4096)
    finding = diagnose_codebook_use(attrs.evolve(discrete.evidence(), token_space=large))
    assert finding.verdict is Verdict.FOUND
    used = len(discrete.real.unique())
    assert f"uses {used} of 4096 codes" in finding.found
    assert any("revive_dead_codes" in advice for advice in finding.advice)


def test_few_tokens_do_not_make_codes_dead(discrete):
    """Two pictures can not use 4096 codes, however good: the line is what so many tokens could use."""
    space = DiscreteTokens(grid=discrete.tokenizer.token_space.grid, vocabulary_size=4096)
    ids = torch.randperm(4096, generator=torch.Generator().manual_seed(0))[:128].view(2, 64)
    finding = diagnose_codebook_use(attrs.evolve(discrete.evidence(), token_space=space, real_ids=ids))
    assert finding.verdict is Verdict.NOT_FOUND


def test_a_model_that_draws_few_codes_is_found(discrete):
    """The most frequent code in most places: found at the scale that does it, the tokenizer is not blamed."""
    usual = int(torch.bincount(discrete.real.flatten()).argmax())
    few = torch.where(torch.rand(discrete.others.shape, generator=torch.Generator().manual_seed(0)) < 0.8, usual, 0)
    few = torch.where(few == usual, few, discrete.others)
    finding = diagnose_codebook_use(discrete.evidence(discrete.drawn(), discrete.drawn(few, guidance=7.5)))
    assert finding.verdict is Verdict.FOUND
    assert [row["is_found"] for row in finding.figures["drawn"]] == [False, True]
    assert "at guidance 7.5" in finding.found
    assert not any("revive" in advice for advice in finding.advice)


def test_perplexity_counts_equally_likely_codes():
    """Four equal codes are four; one code is one; an uneven pair is between one and two."""
    values = perplexities(torch.tensor([[1.0, 1, 1, 1], [5, 0, 0, 0], [3, 1, 0, 0]], dtype=torch.float64))
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert values.tolist() == pytest.approx([4.0, 1.0, expected])


def test_continuous_tokens_have_no_codebook(continuous):
    """Nothing to look at."""
    finding = diagnose_codebook_use(continuous.evidence())
    assert finding.verdict is Verdict.NOT_LOOKED
    assert "no codebook" in finding.found
