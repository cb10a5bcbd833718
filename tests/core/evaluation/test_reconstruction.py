"""Figures of one tokenizer: closeness, bits and use of the codebook."""

import math

import pytest
import torch

from fluid_core.errors import InvalidRequestError
from fluid_core.evaluation.feature_networks.options import RandomConvolutionsOptions
from fluid_core.evaluation.feature_networks.random_convolutions import RandomConvolutions
from fluid_core.evaluation.frechet_distance import feature_statistics, frechet_distance
from fluid_core.evaluation.image_similarity import psnr, ssim
from fluid_core.evaluation.reconstruction import (
    LARGEST_PSNR,
    PosteriorRate,
    codebook_use,
    measure_reconstruction,
    reconstruct,
)
from fluid_core.token_space import ContinuousTokens, DiscreteTokens, Grid


class Halves(torch.nn.Module):
    """Ids of four greys for the left and the right half of a picture of 32 x 32 pixels."""

    image_size = (32, 32)
    token_space = DiscreteTokens(grid=Grid(height=1, width=2), vocabulary_size=4)

    def precompute(self, images):
        """The ids themselves."""
        greys = torch.nn.functional.adaptive_avg_pool2d(images, (1, 2)).mean(dim=1).flatten(1)
        return {"ids": ((greys + 1) * 2).long().clamp(0, 3)}

    def tokens(self, precomputed, *, random):
        """Already there."""
        return precomputed["ids"]

    def decode(self, tokens):
        """Flat halves."""
        greys = (tokens.float() + 0.5) / 2 - 1
        return greys[:, None, None].repeat_interleave(16, dim=3).expand(-1, 3, 32, -1)


class NoisyPixels(torch.nn.Module):
    """One token of 4 channels whose posterior is known: mean brightness of each quarter, with noise."""

    image_size = (32, 32)
    token_space = ContinuousTokens(grid=Grid(height=1, width=1), channels=4)

    def precompute(self, images):
        """Moments, with channels as second axis."""
        mean = torch.nn.functional.adaptive_avg_pool2d(images.mean(dim=1), 2).flatten(1)[:, :, None, None]
        return {"mean": mean, "log_variance": torch.full_like(mean, math.log(0.01))}

    def tokens(self, precomputed, *, random):
        """Draws from the posterior."""
        mean = precomputed["mean"].flatten(1)[:, None]
        return mean + 0.1 * random.normal((1, 4))

    def decode(self, tokens):
        """Quarters, beyond the range now and then."""
        small = tokens.reshape(-1, 1, 2, 2).expand(-1, 3, -1, -1)
        return small.repeat_interleave(16, dim=2).repeat_interleave(16, dim=3)


def pictures(count):
    """Coarse noise of 32 x 32 pixels in [-1, 1]."""
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return coarse.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)


def test_figures_are_those_of_originals_and_reconstructions():
    """Whatever the batches: the same means, the same distance, and the counts that follow from the ids."""
    network = RandomConvolutions(RandomConvolutionsOptions(channels=(4,)))
    images = pictures(30)
    found = measure_reconstruction(Halves(), images.split(7), network=network)
    _, ids, back = reconstruct(Halves(), images, seed=0)
    assert found.num_images == 30
    assert found.psnr == pytest.approx(float(psnr(back, images).mean()), rel=1e-5)
    assert found.ssim == pytest.approx(float(ssim(back, images).mean()), rel=1e-5)
    expected = frechet_distance(network, *(feature_statistics(network, [one]) for one in (images, back)))
    assert found.frechet.value == pytest.approx(expected.value, rel=1e-4)
    assert found.frechet.network == network.name
    shares = torch.bincount(ids.flatten(), minlength=4) / ids.numel()
    entropy = -sum(float(share * share.log2()) for share in shares if share > 0)
    assert found.tokens_per_image == 2
    assert found.bits_per_image.stored == 2 * 2
    assert found.bits_per_image.informative == pytest.approx(2 * entropy, rel=1e-5)
    assert found.codebook.num_used == int((shares > 0).sum())
    assert found.codebook.perplexity == pytest.approx(2**entropy, rel=1e-5)


def test_pictures_that_come_back_as_they_were_stay_finite():
    """The mean of the ratio is capped where it would be infinite."""
    flat = (torch.randint(4, (12, 1, 1, 1)).float() + 0.5) / 2 - 1
    found = measure_reconstruction(Halves(), [flat.expand(12, 3, 32, 32).contiguous()])
    assert found.psnr == LARGEST_PSNR
    assert found.ssim == pytest.approx(1.0)
    assert found.frechet is None


def test_codebook_use_of_known_counts():
    """Two ids used alike are worth two, however many there are; one alone is worth one."""
    even = codebook_use(torch.tensor([5, 0, 5, 0, 0]))
    assert (even.vocabulary_size, even.num_used) == (5, 2)
    assert even.perplexity == pytest.approx(2.0)
    assert codebook_use(torch.tensor([0, 9, 0])).perplexity == pytest.approx(1.0)
    skewed = codebook_use(torch.tensor([3, 1]))
    assert skewed.perplexity == pytest.approx(2 ** (2 - 0.75 * math.log2(3)))


def test_rate_of_known_posteriors():
    """Posteriors with a hundredth of the variance tell half the logarithm of that, and equal ones nothing."""
    means = torch.randn(20000, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[:, :, None]
    rate = PosteriorRate()
    for batch in means.split(3000):
        rate.update({"mean": 5 + 2 * batch, "log_variance": torch.full_like(batch, math.log(4 / 99))})
    assert rate.bits_per_image() == pytest.approx(3 * 0.5 * math.log2(100), rel=0.01)
    nothing = PosteriorRate()
    nothing.update({"mean": torch.full((4, 2, 3), 7.0), "log_variance": torch.full((4, 2, 3), 1.5)})
    assert nothing.bits_per_image() == pytest.approx(0.0, abs=1e-9)
    ids = PosteriorRate()
    ids.update({"ids": torch.zeros(3)})
    assert ids.bits_per_image() is None


def test_continuous_tokens_say_what_their_bits_mean():
    """Stored numbers at 32 bits; information from the posterior, or not known."""
    found = measure_reconstruction(NoisyPixels(), pictures(40).split(16), seed=1)
    assert found.codebook is None
    assert found.bits_per_image.stored == 4 * 32
    assert "4 channels, as numbers of 32 bits" in found.bits_per_image.stored_as
    assert 0 < found.bits_per_image.informative < 40
    other = measure_reconstruction(NoisyPixels(), pictures(40).split(9), seed=1)
    assert other.psnr == pytest.approx(found.psnr, rel=1e-5)
    assert measure_reconstruction(NoisyPixels(), pictures(40).split(9), seed=2).psnr != found.psnr


def test_nothing_to_reconstruct_is_refused():
    """There would be no mean."""
    with pytest.raises(InvalidRequestError, match="at least one batch"):
        measure_reconstruction(Halves(), [])
