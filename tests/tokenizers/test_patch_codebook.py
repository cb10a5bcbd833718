"""Patches of pixels as ids of a codebook."""

import time
import warnings

import pytest
import torch
from sklearn.cluster import KMeans

from fluid_core.errors import ConfigurationError, FluidError, InvalidRequestError, InvalidTokensError
from fluid_core.keyed_random import KeyedRandom
from fluid_core.protocols import LearnsFromImages, Tokenizer
from fluid_core.token_space import DiscreteTokens, Grid
from fluid_tokenizers import PatchCodebook, PatchCodebookOptions, codebook_fitting, to_patches
from fluid_tokenizers.codebook_fitting import fit_codebook

SMALL = PatchCodebookOptions(vocabulary_size=64)


def _encode(tokenizer: PatchCodebook, images: torch.Tensor) -> torch.Tensor:
    random = KeyedRandom(torch.arange(len(images)))
    return tokenizer.tokens(tokenizer.precompute(images), random=random)


def _fitted(scenes, options: PatchCodebookOptions = SMALL, seed: int = 0) -> PatchCodebook:
    tokenizer = PatchCodebook(options)
    tokenizer.fit(scenes(100, seed=1), seed=seed)
    return tokenizer


def test_it_keeps_the_contracts():
    """It is a tokenizer that learns from images, and a module without parameters."""
    tokenizer = PatchCodebook(PatchCodebookOptions(image_size=24, patch_size=8, vocabulary_size=100))
    assert isinstance(tokenizer, Tokenizer)
    assert isinstance(tokenizer, LearnsFromImages)
    assert tokenizer.image_size == (24, 24)
    assert tokenizer.token_space == DiscreteTokens(grid=Grid(height=3, width=3), vocabulary_size=100)
    assert list(tokenizer.parameters()) == []


def test_it_must_be_fitted_first(scenes):
    """Encoding and decoding without a codebook name `fit` as the remedy."""
    tokenizer = PatchCodebook(SMALL)
    assert not tokenizer.fitted
    with pytest.raises(FluidError, match=r"Call fit\(images, seed=...\)"):
        tokenizer.precompute(scenes(1, seed=0))
    with pytest.raises(FluidError, match=r"Call fit\(images, seed=...\)"):
        tokenizer.decode(torch.zeros(1, 64, dtype=torch.int64))


def test_each_patch_gets_its_nearest_codeword(scenes):
    """Ids agree with distances computed one by one in double precision."""
    tokenizer, images = _fitted(scenes), scenes(5, seed=2)
    ids = _encode(tokenizer, images)
    tokenizer.token_space.validate(ids)
    assert ids.shape == (5, 64)
    patches = to_patches(images, 4).double()
    distances = torch.cdist(patches, tokenizer.codebook.double(), compute_mode="donot_use_mm_for_euclid_dist")
    chosen = distances.gather(2, ids[:, :, None])[:, :, 0]
    torch.testing.assert_close(chosen, distances.min(dim=2).values, rtol=0, atol=1e-5)


def test_decoding_shows_codewords_and_encoding_them_again_changes_nothing(scenes):
    """A decoded picture consists of codewords, so it is a fixed point."""
    tokenizer = _fitted(scenes)
    ids = _encode(tokenizer, scenes(5, seed=2))
    images = tokenizer.decode(ids)
    assert torch.equal(to_patches(images, 4), tokenizer.codebook[ids])
    assert torch.equal(_encode(tokenizer, images), ids)


def test_more_codewords_lose_less(scenes):
    """The error on pictures not seen before shrinks with the vocabulary, nearly all of which is used."""
    held_out = scenes(50, seed=3)
    errors = []
    for vocabulary_size in (16, 128, 512):
        tokenizer = _fitted(scenes, PatchCodebookOptions(vocabulary_size=vocabulary_size))
        decoded = tokenizer.decode(_encode(tokenizer, held_out))
        errors.append(float((decoded - held_out).square().mean() / held_out.var()))
        assert len(_encode(tokenizer, scenes(100, seed=1)).unique()) > 0.9 * vocabulary_size
    assert errors[0] > 1.5 * errors[1] > 1.5 * 1.2 * errors[2]
    assert errors[2] < 0.15


def test_the_codebook_is_about_as_good_as_full_k_means(scenes):
    """The quick fit comes within a fifth of the squared error that k-means over all patches at once reaches.

    Most patches of these pictures are plain white: codewords must not be spent on what is merely frequent.
    """
    patches = to_patches(scenes(400, seed=10, flat=True), 4).flatten(0, 1)
    white = (patches == 1).all(dim=1).double().mean()
    assert white > 0.2
    full = KMeans(256, n_init=1, random_state=0).fit(patches.numpy())
    codewords = torch.from_numpy(fit_codebook(patches.numpy(), 256, seed=0))
    error = torch.cdist(patches, codewords).min(dim=1).values.square().sum()
    assert error < 1.2 * full.inertia_


def test_fitting_is_seeded(scenes):
    """The same seed gives the same codebook, another seed another one."""
    first, again, other = (_fitted(scenes, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(first.codebook, again.codebook)
    assert not torch.equal(first.codebook, other.codebook)


def test_fitting_leaves_the_global_generators_alone(scenes):
    """Neither torch's nor NumPy's global state moves."""
    import numpy as np

    before, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()
    _fitted(scenes)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == legacy).all()


def test_few_distinct_patches_are_represented_exactly():
    """With fewer patches than codewords nothing is lost, nothing warns, and spare ids are never produced."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.rand(5, 3, 1, 1, generator=generator) * 2 - 1
    images = colours[torch.randint(5, (20, 64), generator=generator)]
    images = images.view(20, 8, 8, 3).permute(0, 3, 1, 2).repeat_interleave(4, 2).repeat_interleave(4, 3)
    tokenizer = PatchCodebook(SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tokenizer.fit(images, seed=0)
    assert tokenizer.fitted
    ids = _encode(tokenizer, images)
    assert torch.equal(tokenizer.decode(ids), images)
    assert sorted(ids.unique().tolist()) == [0, 1, 2, 3, 4]
    # Every spare id shows one of the five colours, in turn.
    spare = tokenizer.decode(torch.arange(64)[None])
    expected = tokenizer.decode((torch.arange(64) % 5)[None])
    assert torch.equal(spare, expected)


def test_state_dict_brings_the_codebook(scenes):
    """A new tokenizer that loads the state is fitted and makes the same ids, spare ones included."""
    for tokenizer in (_fitted(scenes), PatchCodebook(SMALL)):
        loaded = PatchCodebook(SMALL)
        loaded.load_state_dict(tokenizer.state_dict())
        assert loaded.fitted == tokenizer.fitted
        assert torch.equal(loaded.codebook, tokenizer.codebook)
        assert torch.equal(loaded.num_codewords, tokenizer.num_codewords)
    fitted, loaded = _fitted(scenes), PatchCodebook(SMALL)
    loaded.load_state_dict(fitted.state_dict())
    images = scenes(3, seed=4)
    assert torch.equal(_encode(loaded, images), _encode(fitted, images))


def test_casting_the_model_changes_no_id(scenes):
    """A model cast to bfloat16, or run under autocast, keeps the codebook in single precision."""
    tokenizer, images = _fitted(scenes), scenes(20, seed=5)
    ids = _encode(tokenizer, images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(_encode(tokenizer, images), ids)
    tokenizer.to(torch.bfloat16)
    assert torch.equal(_encode(tokenizer, images), ids)


def test_a_batch_larger_than_a_chunk_is_encoded_in_parts(scenes):
    """300 images have more patches than are compared at once; each image gets the ids it has alone."""
    tokenizer, images = _fitted(scenes), scenes(300, seed=6)
    ids = _encode(tokenizer, images)
    assert torch.equal(_encode(tokenizer, images[255:258]), ids[255:258])


def test_cached_ids_may_be_small(scenes):
    """Ids stored as 16-bit integers become tokens of the space's type."""
    tokenizer = _fitted(scenes)
    cached = {"ids": tokenizer.precompute(scenes(2, seed=7))["ids"].to(torch.int16)}
    tokens = tokenizer.tokens(cached, random=KeyedRandom(torch.arange(2)))
    tokenizer.token_space.validate(tokens)


def test_ids_outside_the_vocabulary_are_refused(scenes):
    """Decoding checks what it is given."""
    with pytest.raises(InvalidTokensError, match="from 0 to 63, found ids from 0 to 64"):
        _fitted(scenes).decode(torch.arange(64)[None] + (torch.arange(64) == 63))


def test_images_of_another_size_are_refused(scenes):
    """Also when fitting."""
    with pytest.raises(InvalidRequestError, match="found 48 x 48"):
        PatchCodebook(SMALL).fit(scenes(1, seed=0, size=48), seed=0)


def test_options_are_checked():
    """Patches must cover the image, and a codebook has at least two words."""
    with pytest.raises(ConfigurationError, match="divide image_size"):
        PatchCodebookOptions(image_size=32, patch_size=6)
    with pytest.raises(ValueError, match="vocabulary_size"):
        PatchCodebookOptions(vocabulary_size=1)


def test_more_vectors_than_the_limit_are_sampled(scenes, monkeypatch):
    """Of too many patches a seeded sample is used, which still covers the data."""
    monkeypatch.setattr(codebook_fitting, "MAX_VECTORS", 2000)
    vectors = to_patches(scenes(100, seed=8), 4).flatten(0, 1).numpy()
    codewords = fit_codebook(vectors, 32, seed=0)
    assert codewords.shape == (32, 48)
    assert (codewords == fit_codebook(vectors, 32, seed=0)).all()
    assert ((vectors[:, None] - codewords) ** 2).sum(axis=2).min(axis=1).mean() < vectors.var(axis=0).sum() / 3


@pytest.mark.slow
def test_fitting_two_thousand_pictures_is_quick(scenes):
    """512 codewords from 128,000 patches: some seconds on one core, with room for a busy machine."""
    tokenizer, images = PatchCodebook(), scenes(2000, seed=9)
    start = time.process_time()
    tokenizer.fit(images, seed=0)
    assert time.process_time() - start < 30
    assert int(tokenizer.num_codewords) == 512
