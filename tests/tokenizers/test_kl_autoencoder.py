"""`kl-autoencoder` against diffusers itself, on tiny autoencoders with random weights."""

import pytest
import torch

from fluid_core.errors import CheckpointMismatchError, ConfigurationError, InvalidRequestError
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import Grid
from fluid_tokenizers import KLAutoencoder, KLAutoencoderOptions, to_patches


@pytest.fixture
def build(tmp_path):
    """A function that saves an autoencoder, and builds the tokenizer from its folder with further options."""

    def make(autoencoder, **options):
        autoencoder.save_pretrained(tmp_path / "weights")
        return KLAutoencoder(KLAutoencoderOptions(**{"path": str(tmp_path / "weights"), "image_size": 16, **options}))

    return make


def _random(count):
    return KeyedRandom(torch.arange(count))


def _encode(tokenizer, images):
    return tokenizer.tokens(tokenizer.precompute(images), random=_random(len(images)))


def test_stable_diffusion_at_256_pixels_gives_256_tokens_of_16_channels(build, tiny_autoencoders, scenes):
    """Four stages and groups of 2 x 2, as the paper has it; the channels are ordered channel, row, column."""
    autoencoder = tiny_autoencoders.kl(4, scaling_factor=0.18215)
    tokenizer = build(autoencoder, image_size=256, patch_size=2, sample_posterior=False)
    assert tokenizer.token_space.grid == Grid(height=16, width=16)
    assert tokenizer.token_space.channels == 16
    images = scenes(1, seed=0, size=256)
    tokens = _encode(tokenizer, images)
    with torch.no_grad():
        latents = autoencoder.encode(images).latent_dist.mode() * 0.18215
    assert latents.shape == (1, 4, 32, 32)
    assert torch.equal(tokens[0, 17].view(4, 2, 2), latents[0, :, 2:4, 2:4])
    assert tuple(tokenizer.decode(tokens).shape) == (1, 3, 256, 256)


def test_decoding_equals_diffusers(build, tiny_autoencoders):
    """The same latents give the same pixels as the autoencoder's own decode, clamped, with scaling and shift undone."""
    autoencoder = tiny_autoencoders.kl(scaling_factor=1.5305, shift_factor=0.0609)
    tokenizer = build(autoencoder, patch_size=2)
    tokens = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(1))
    scaled = tokens.view(3, 4, 4, 4, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(3, 4, 8, 8)
    with torch.no_grad():
        expected = autoencoder.decode(scaled / 1.5305 + 0.0609).sample.clamp(-1, 1)
        assert torch.equal(tokenizer.decode(tokens), expected)


@pytest.mark.parametrize(
    ("config", "centre", "factor"),
    [
        ({}, 0.0, 0.18215),
        ({"scaling_factor": 0.13025}, 0.0, 0.13025),
        ({"scaling_factor": 1.5305, "shift_factor": 0.0609}, 0.0609, 1.5305),
        (
            {"scaling_factor": 0.5, "latents_mean": [0.1, 0.2, 0.3, 0.4], "latents_std": [1.0, 2.0, 4.0, 8.0]},
            [0.1, 0.2, 0.3, 0.4],
            [0.5, 0.25, 0.125, 0.0625],
        ),
    ],
)
def test_the_own_scaling_is_honoured(build, tiny_autoencoders, scenes, config, centre, factor):
    """(latents - shift) * scale, or per channel where the configuration has mean and deviation."""
    autoencoder = tiny_autoencoders.kl(**config)
    tokenizer = build(autoencoder, sample_posterior=False)
    images = scenes(2, seed=0, size=16)
    with torch.no_grad():
        latents = autoencoder.encode(images).latent_dist.mode()
    centre, factor = (torch.tensor(value).expand(4)[:, None, None] for value in (centre, factor))
    expected = ((latents - centre) * factor).flatten(2).transpose(1, 2)
    torch.testing.assert_close(_encode(tokenizer, images), expected, rtol=1e-6, atol=1e-7)
    assert tokenizer.own_scale == (None if "latents_mean" in config else config.get("scaling_factor", 0.18215))


def test_the_cache_holds_the_moments_of_the_posterior(build, tiny_autoencoders, scenes):
    """Mean and log-variance as diffusers computes them, unscaled, in float32 whatever the weights' type."""
    autoencoder, images = tiny_autoencoders.kl(), scenes(2, seed=0, size=16)
    with torch.no_grad():
        posterior = autoencoder.encode(images).latent_dist
    stored = build(autoencoder).precompute(images)
    assert torch.equal(stored["mean"], posterior.mean)
    assert torch.equal(stored["log_variance"], posterior.logvar)
    in_bfloat16 = build(autoencoder, dtype="bfloat16").precompute(images)
    assert {tensor.dtype for tensor in in_bfloat16.values()} == {torch.float32}
    torch.testing.assert_close(in_bfloat16["mean"], posterior.mean, rtol=0.1, atol=0.1)


def test_tokens_are_drawn_from_the_posterior_by_key(build, tiny_autoencoders, scenes):
    """Draws have the posterior's mean and deviation, follow the image's key, and are off with `sample_posterior`."""
    tokenizer = build(tiny_autoencoders.kl(), latents="scaled")
    stored = {name: tensor.expand(4000, -1, -1, -1) for name, tensor in tokenizer.precompute(scenes(1, 0, 16)).items()}
    drawn = tokenizer.tokens(stored, random=_random(4000)) / 0.18215
    mean = stored["mean"][0].flatten(1).T
    deviation = torch.exp(0.5 * stored["log_variance"][0]).flatten(1).T
    assert ((drawn.mean(0) - mean).abs() < 6 * deviation / 4000**0.5).all()
    torch.testing.assert_close(drawn.std(0), deviation, rtol=0.1, atol=0)
    assert torch.equal(tokenizer.tokens(stored, random=_random(4000))[7] / 0.18215, drawn[7])
    mode = build(tiny_autoencoders.kl(), latents="scaled", sample_posterior=False)
    assert torch.allclose(mode.tokens(stored, random=_random(4000))[3] / 0.18215, mean, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(("name", "pixels", "channels"), [("tiny", 4, 4), ("dc", 2, 8)])
def test_deterministic_autoencoders(build, tiny_autoencoders, scenes, name, pixels, channels):
    """AutoencoderTiny and AutoencoderDC: the latent is stored, nothing is drawn, decoding equals diffusers'."""
    autoencoder = getattr(tiny_autoencoders, name)()
    tokenizer, images = build(autoencoder), scenes(2, seed=0, size=16)
    assert tokenizer.token_space.grid.height == 16 // pixels
    assert tokenizer.token_space.channels == channels
    stored = tokenizer.precompute(images)
    with torch.no_grad():
        latent = autoencoder.encode(images, return_dict=False)[0]
        scale = autoencoder.config["scaling_factor"]
        expected = autoencoder.decode(latent * scale / scale).sample.clamp(-1, 1)
    assert stored.keys() == {"latent"}
    assert torch.equal(stored["latent"], latent)
    tokens = tokenizer.tokens(stored, random=_random(2))
    assert torch.equal(tokens, tokenizer.tokens(stored, random=KeyedRandom(torch.tensor([8, 9]))))
    torch.testing.assert_close(tokenizer.decode(tokens), expected, rtol=1e-5, atol=1e-5)


def test_fitted_tokens_are_normalised_and_decode_the_same(build, tiny_autoencoders, scenes):
    """After `fit` each token channel has mean 0 and deviation 1, and decoding undoes exactly that."""
    tokenizer = build(tiny_autoencoders.kl(), patch_size=2, sample_posterior=False)
    images = scenes(40, seed=0, size=16)
    assert not tokenizer.fitted
    plain = _encode(tokenizer, images)
    before = tokenizer.decode(plain)
    tokenizer.fit(images, seed=0)
    assert tokenizer.fitted
    tokens = _encode(tokenizer, images)
    vectors = tokens.flatten(0, 1).double()
    torch.testing.assert_close(vectors.mean(0), torch.zeros(16).double(), rtol=0, atol=1e-4)
    torch.testing.assert_close(vectors.std(0, correction=0), torch.ones(16).double(), rtol=1e-4, atol=0)
    torch.testing.assert_close(tokenizer.decode(tokens), before, rtol=0, atol=1e-5)


def test_scaled_latents_are_left_at_the_own_constants(build, tiny_autoencoders, scenes):
    """`latents = "scaled"` is fitted from the start, and `fit` changes nothing."""
    tokenizer = build(tiny_autoencoders.kl(), latents="scaled")
    images = scenes(4, seed=0, size=16)
    before = _encode(tokenizer, images)
    assert tokenizer.fitted
    tokenizer.fit(images, seed=0)
    assert torch.equal(_encode(tokenizer, images), before)


def test_autocast_changes_nothing(build, tiny_autoencoders, scenes):
    """Under a trainer's autocast the latents are those of a cache made without."""
    tokenizer, images = build(tiny_autoencoders.kl()), scenes(2, seed=0, size=16)
    stored = tokenizer.precompute(images)
    tokens = tokenizer.tokens(stored, random=_random(2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(tokenizer.precompute(images)["mean"], stored["mean"])
        assert torch.equal(tokenizer.decode(tokens), tokenizer.decode(tokens))
        assert tokenizer.decode(tokens).dtype == torch.float32


def test_a_cast_model_keeps_constants_and_statistics(build, tiny_autoencoders, scenes):
    """Inside a model cast to bfloat16 the autoencoder is cast, scaling and statistics are not rounded."""
    tokenizer = build(tiny_autoencoders.kl())
    tokenizer.fit(scenes(8, seed=0, size=16), seed=0)
    mean = tokenizer.statistics.mean.clone()
    tokenizer.to(torch.bfloat16)
    assert next(tokenizer.autoencoder.parameters()).dtype == torch.bfloat16
    assert torch.equal(tokenizer.statistics.mean, mean)
    assert float(tokenizer.scaling.factor[0]) == pytest.approx(0.18215, rel=1e-6)
    images = tokenizer.decode(_encode(tokenizer, scenes(2, seed=1, size=16)))
    assert images.isfinite().all()


def test_float16_is_refused_where_it_overflows(build, tiny_autoencoders, scenes):
    """`force_upcast` is honoured at loading, and when a loaded model is cast later."""
    with pytest.raises(ConfigurationError, match=r"force_upcast.*Choose \"bfloat16\" or \"float32\""):
        build(tiny_autoencoders.kl(), dtype="float16")
    tokenizer = build(tiny_autoencoders.kl()).to(torch.float16)
    with pytest.raises(InvalidRequestError, match=r"cast to float16.*torch\.bfloat16 instead"):
        tokenizer.precompute(scenes(1, seed=0, size=16))
    assert build(tiny_autoencoders.kl(force_upcast=False), dtype="float16").options.dtype == "float16"


def test_sizes_that_do_not_fit_are_refused(build, tiny_autoencoders, scenes):
    """Images that latents do not cover, and latents that tokens do not cover, each with sizes that would do."""
    with pytest.raises(ConfigurationError, match=r"multiple of 8.*8 x 8 pixels, found 100\. Choose for example 96"):
        build(tiny_autoencoders.kl(4), image_size=100)
    with pytest.raises(ConfigurationError, match=r"divide the 8 x 8 latents.*found 3\. Choose an image_size that is"):
        build(tiny_autoencoders.kl(), patch_size=3)
    tokenizer = build(tiny_autoencoders.kl())
    with pytest.raises(InvalidRequestError, match="Expected images of 16 x 16 pixels"):
        tokenizer.precompute(scenes(1, seed=0, size=32))
    with pytest.raises(InvalidRequestError, match=r"in \[-1, 1\], found values from"):
        tokenizer.precompute(scenes(1, seed=0, size=16) * 255)


def test_channels_that_do_not_fit_are_refused(build, tiny_autoencoders):
    """Autoencoders of other pictures than RGB, and constants for another number of channels."""
    with pytest.raises(CheckpointMismatchError, match=r"RGB images, found in_channels = 4"):
        build(tiny_autoencoders.kl(in_channels=4))
    with pytest.raises(CheckpointMismatchError, match=r"latents_mean .* one number for each of its 4 latent"):
        build(tiny_autoencoders.kl(latents_mean=[0.0, 0.0], latents_std=[1.0, 1.0]))


def test_what_another_tokenizer_precomputed_is_refused(build, tiny_autoencoders):
    """Ids, or latents of a deterministic autoencoder, are no moments."""
    tokenizer = build(tiny_autoencoders.kl())
    with pytest.raises(InvalidRequestError, match="Expected mean and log_variance of AutoencoderKL, found ids"):
        tokenizer.tokens({"ids": torch.zeros(1, 64, dtype=torch.int64)}, random=_random(1))


def test_latents_that_are_not_finite_are_refused(build, tiny_autoencoders, scenes):
    """NaN of an overflow names the float type rather than poisoning a cache."""
    tokenizer = build(tiny_autoencoders.kl())
    with torch.no_grad():
        next(tokenizer.autoencoder.encoder.parameters()).fill_(torch.nan)
    with pytest.raises(InvalidRequestError, match=r"Expected finite latents.*computed in torch\.float32"):
        tokenizer.precompute(scenes(1, seed=0, size=16))


def test_identity_is_that_of_configuration_and_weights(build, tiny_autoencoders, tmp_path, scenes):
    """The same in another folder, grouping, image size, and after measuring; another after a change of a weight."""
    tokenizer = build(tiny_autoencoders.kl(4), image_size=32)
    identity = tokenizer.identity()
    tokenizer.autoencoder.save_pretrained(tmp_path / "copy")
    copy = KLAutoencoder(KLAutoencoderOptions(path=str(tmp_path / "copy"), image_size=64, patch_size=2))
    assert copy.identity() == identity
    tokenizer.fit(scenes(4, seed=0), seed=0)
    assert tokenizer.identity() == identity
    assert build(tiny_autoencoders.kl(4, scaling_factor=0.2), image_size=32).identity() != identity
    with torch.no_grad():
        next(copy.autoencoder.parameters()).view(-1)[0].add_(1e-3)
    assert copy.identity() != identity
    assert len(identity) == 64


def test_grouping_is_that_of_patches(build, tiny_autoencoders, scenes):
    """Grouped tokens are `to_patches` of the ungrouped latents."""
    images = scenes(2, seed=0, size=16)
    single = _encode(build(tiny_autoencoders.kl(), sample_posterior=False), images)
    grouped = _encode(build(tiny_autoencoders.kl(), sample_posterior=False, patch_size=2), images)
    assert torch.equal(grouped, to_patches(single.transpose(1, 2).reshape(2, 4, 8, 8), 2))
