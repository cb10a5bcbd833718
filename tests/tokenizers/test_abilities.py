"""Abilities that caches, saving and measuring ask for."""

import pytest
import torch

from fluid_core.errors import InvalidRequestError
from fluid_core.protocols import Identified, LearnsFromImages, MeasuresLatents, StoredApart
from fluid_tokenizers import PatchCodebook, PatchCodebookOptions, PixelPatches, PixelPatchesOptions, plugin


def test_every_tokenizer_says_what_it_can(tmp_path):
    """Which protocols each of the four has, as core finds out."""
    found = {}
    for component in plugin.fluid_register_tokenizers():
        options = component.example(tmp_path) if component.example else component.options()
        tokenizer = component.build(options)
        abilities = (Identified, LearnsFromImages, MeasuresLatents, StoredApart)
        found[component.name] = {ability.__name__ for ability in abilities if isinstance(tokenizer, ability)}
    assert found == {
        "pixel-patches": {"Identified", "LearnsFromImages"},
        "patch-codebook": {"Identified", "LearnsFromImages"},
        "kl-autoencoder": {"Identified", "LearnsFromImages", "MeasuresLatents", "StoredApart"},
        "vq-autoencoder": {"Identified", "StoredApart"},
    }


def test_measuring_pixel_patches_keeps_their_identity(scenes):
    """Statistics are applied after what a cache holds; another patch size is another tokenizer."""
    tokenizer = PixelPatches()
    identity = tokenizer.identity()
    tokenizer.fit(scenes(10, seed=0), seed=0)
    assert tokenizer.identity() == identity
    assert PixelPatches(PixelPatchesOptions(patch_size=8)).identity() != identity


def test_a_codebook_is_part_of_the_identity(scenes):
    """Ids mean codewords: the same for the same codebook, another for another, and none before there is one."""
    tokenizer, other, copy = (PatchCodebook(PatchCodebookOptions(vocabulary_size=16)) for _ in range(3))
    with pytest.raises(InvalidRequestError, match="Expected a fitted codebook"):
        tokenizer.identity()
    tokenizer.fit(scenes(20, seed=0), seed=0)
    other.fit(scenes(20, seed=1), seed=0)
    copy.load_state_dict(tokenizer.state_dict())
    assert copy.identity() == tokenizer.identity() != other.identity()
    tokenizer.to(torch.bfloat16)
    assert copy.identity() == tokenizer.identity()
