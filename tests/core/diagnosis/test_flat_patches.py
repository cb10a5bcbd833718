"""Grey patches: found where tokens were flattened, along the order, and in colours the data does not have."""

import attrs
import pytest
import torch

from fluid_core.diagnosis.evidence import DrawnPictures, Evidence, patches
from fluid_core.diagnosis.finding import Verdict
from fluid_core.diagnosis.flat_patches import FLAT_CONTRAST, contrasts, diagnose_flat_patches


def grey_from(tokenized, first):
    """Drawn tokens that are grey from position `first` on."""
    flat = tokenized.encoded(torch.zeros(len(tokenized.others), 3, 32, 32))
    tokens = tokenized.others.clone()
    tokens[:, first:] = flat[:, first:]
    return tokenized.drawn(tokens)


def test_the_data_itself_has_no_grey_patches(continuous, discrete):
    """Other real pictures, through the tokenizer, are as flat as real pictures."""
    for tokenized in (continuous, discrete):
        for order in ("raster", "random"):
            finding = diagnose_flat_patches(tokenized.evidence(tokenized.drawn(order=order)))
            assert finding.verdict is Verdict.NOT_FOUND
            assert finding.advice == ()
            (row,) = finding.figures["drawn"]
            assert abs(row["extra"]["value"]) < 0.05


def test_patches_that_turn_grey_along_the_order_are_found(continuous):
    """The last part of each picture is flat: found, and told to grow, since errors add up in raster order."""
    evidence = attrs.evolve(continuous.evidence(grey_from(continuous, 32)), one_after_the_other=True)
    finding = diagnose_flat_patches(evidence)
    assert finding.verdict is Verdict.FOUND
    (row,) = finding.figures["drawn"]
    first, _, last = row["extra_by_third"]
    assert abs(first) < 0.05
    assert last > 0.1
    assert "become more along the order" in finding.found
    assert any("Raster order" in advice for advice in finding.advice)
    assert row["flat_share"] > finding.figures["flat_share_real"] + 0.1


def test_flat_patches_spread_over_the_picture_do_not_grow(continuous):
    """The same number of grey patches at random places of a random order is found, and not told to grow."""
    drawn = continuous.drawn(order="random")
    chosen = torch.rand(drawn.step.shape, generator=torch.Generator().manual_seed(1)) < 0.6
    tokens = torch.where(chosen[:, :, None], torch.zeros_like(drawn.tokens), drawn.tokens)
    finding = diagnose_flat_patches(continuous.evidence(continuous.drawn(tokens, order="random")))
    assert finding.verdict is Verdict.FOUND
    assert "do not become more along the order" in finding.found


def test_grey_where_the_data_is_plain_is_found_by_its_colour(continuous):
    """Plain backgrounds turned mid-grey are no flatter than before, and still no colour of the data."""
    plain = contrasts_of(continuous, continuous.others) < 1e-3
    grey = continuous.encoded(torch.zeros(len(plain), 3, 32, 32))
    tokens = torch.where(plain[:, :, None], grey, continuous.others)
    finding = diagnose_flat_patches(continuous.evidence(continuous.drawn(tokens)))
    assert finding.verdict is Verdict.FOUND
    (row,) = finding.figures["drawn"]
    assert abs(row["extra"]["value"]) < 0.1
    assert row["foreign_share"] == pytest.approx(float(plain.double().mean()), abs=0.02)
    assert "colour that no flat part of a real picture has" in finding.found


def contrasts_of(tokenized, tokens):
    """Spread within each patch."""
    return contrasts(patches(tokenized.pictures(tokens), tokenized.tokenizer.token_space.grid))


def test_the_scale_at_which_it_happens_is_named(continuous):
    """Healthy without guidance and grey at 7.5: the report speaks of 7.5, and of drawing with less."""
    grey = attrs.evolve(grey_from(continuous, 20), guidance=7.5)
    finding = diagnose_flat_patches(continuous.evidence(continuous.drawn(), grey))
    assert finding.verdict is Verdict.FOUND
    assert "at guidance 7.5" in finding.found
    assert "less guidance" in finding.advice[0]
    assert [row["is_found"] for row in finding.figures["drawn"]] == [False, True]


def test_a_folder_of_pictures_needs_neither_tokens_nor_steps(continuous):
    """Pictures alone show it; nothing is said about the order."""
    grey = DrawnPictures(pictures=grey_from(continuous, 20).pictures)
    finding = diagnose_flat_patches(continuous.evidence(grey))
    assert finding.verdict is Verdict.FOUND
    assert "along the order" not in finding.found


def test_few_pictures_find_nothing(continuous):
    """Two pictures, one of them grey, may be chance: no finding without certainty."""
    few = grey_from(continuous, 32)
    pair = torch.cat([continuous.pictures(continuous.others[:1]), few.pictures[:1]])
    assert diagnose_flat_patches(continuous.evidence(DrawnPictures(pictures=pair))).verdict is Verdict.NOT_FOUND


def test_noise_is_told_and_is_no_grey_patch(continuous):
    """Plain backgrounds full of noise: fewer flat patches than in real pictures, in words."""
    noise = 0.5 * torch.randn(continuous.others.shape, generator=torch.Generator().manual_seed(0))
    finding = diagnose_flat_patches(continuous.evidence(continuous.drawn(continuous.others + noise)))
    assert finding.verdict is Verdict.NOT_FOUND
    assert "full of noise" in finding.found


def test_nothing_to_look_at(continuous):
    """Without pictures, or where all real ones are flat, it says so."""
    assert diagnose_flat_patches(Evidence(why_no_pictures="No model.")).found == "No model."
    flat = continuous.evidence()
    flat = attrs.evolve(flat, real=attrs.evolve(flat.real, pictures=torch.zeros_like(flat.real.pictures)))
    assert diagnose_flat_patches(flat).verdict is Verdict.NOT_LOOKED


def test_contrast_is_the_spread_within_a_patch():
    """Two values, half of the pixels each: the spread is half their distance; a flat patch has none."""
    cells = torch.zeros(1, 2, 3, 4)
    cells[0, 1, :, :2] = 1.0
    assert contrasts(cells).tolist() == [[0.0, 0.5]]
    assert 0 < FLAT_CONTRAST < 1
