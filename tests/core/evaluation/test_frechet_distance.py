"""The Frechet distance: known distances, torchmetrics, and what it says about itself."""

import logging
from importlib.util import find_spec

import pytest
import torch

from fluid_core.errors import InvalidRequestError
from fluid_core.evaluation.feature_networks.options import RandomConvolutionsOptions
from fluid_core.evaluation.feature_networks.random_convolutions import RandomConvolutions
from fluid_core.evaluation.frechet_distance import (
    FeatureStatistics,
    feature_statistics,
    frechet_distance,
    gaussian_distance,
)


@pytest.fixture(scope="module")
def network():
    """A network with 24 features."""
    return RandomConvolutions(RandomConvolutionsOptions(channels=(4, 8)))


def pictures(count, seed, power=1.0):
    """Noise, brighter or darker with the power."""
    noise = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))
    return noise**power * 2 - 1


def spread(width, seed, rank=None):
    """A covariance of the given rank."""
    rank = width if rank is None else rank
    factors = torch.randn(width, rank, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return factors @ factors.T / rank


def test_normal_distributions_with_a_known_distance():
    """Where covariances commute the distance is that of means and standard deviations, one by one."""
    mean, other = torch.tensor([0.0, 1.0, -2.0]), torch.tensor([3.0, 1.0, 2.0])
    std, other_std = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([4.0, 2.0, 0.0])
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).double())[0]
    covariances = [rotation @ torch.diag(one.double() ** 2) @ rotation.T for one in (std, other_std)]
    expected = 9 + 16 + 9 + 0.25
    assert gaussian_distance(mean, covariances[0], other, covariances[1]) == pytest.approx(expected, abs=1e-6)
    assert gaussian_distance(other, covariances[1], mean, covariances[0]) == pytest.approx(expected, abs=1e-6)


def test_covariances_that_do_not_commute_agree_with_a_general_root():
    """The symmetric form equals the trace of the principal root of the product, as scipy finds it."""
    from scipy.linalg import sqrtm

    a, b = spread(12, 1), spread(12, 2)
    zero = torch.zeros(12)
    expected = float(a.trace() + b.trace()) - 2 * sqrtm((a @ b).numpy()).trace().real
    assert gaussian_distance(zero, a, zero, b) == pytest.approx(expected, rel=1e-9)


def test_singular_covariances_are_no_trouble():
    """Few images leave most directions without variance; a set is still at distance zero from itself."""
    a, b = spread(40, 1, rank=3), spread(40, 2, rank=3)
    mean = torch.zeros(40)
    assert gaussian_distance(mean, a, mean, a) == pytest.approx(0.0, abs=1e-6)
    assert 0 < gaussian_distance(mean, a, mean, b) <= float(a.trace() + b.trace())


def test_statistics_do_not_depend_on_the_batches():
    """Merged batches give the mean and covariance of all vectors at once, also far from zero."""
    vectors = torch.randn(101, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1e6
    statistics = FeatureStatistics(7)
    for batch in vectors.split([1, 40, 0, 59, 1]):
        statistics.update(batch)
    assert statistics.count == 101
    torch.testing.assert_close(statistics.mean, vectors.mean(dim=0), rtol=1e-14, atol=0)
    torch.testing.assert_close(statistics.covariance(), vectors.T.cov(), rtol=1e-9, atol=1e-9)


@pytest.mark.skipif(find_spec("torchmetrics") is None, reason="torchmetrics, to compare with, is not installed")
def test_it_agrees_with_torchmetrics(network):
    """Given the same features, the figure is that of FrechetInceptionDistance."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Features(torch.nn.Module):
        num_features = network.width

        def forward(self, images):
            return network.features(images)

    metric = FrechetInceptionDistance(feature=Features(), normalize=False, input_img_size=(3, 32, 32))
    metric.set_dtype(torch.float64)
    real, drawn = pictures(90, 1), pictures(70, 2, power=2.0)
    metric.update(real, real=True)
    metric.update(drawn, real=False)
    found = frechet_distance(
        network, feature_statistics(network, real.split(32)), feature_statistics(network, drawn.split(19))
    )
    assert found.value == pytest.approx(float(metric.compute()), rel=1e-5)
    assert found.value > 0.1


def test_a_distance_says_what_it_was_measured_with(network):
    """The name of the network and both numbers of images are part of it."""
    one, other = (feature_statistics(network, [pictures(30, seed)]) for seed in (1, 2))
    found = frechet_distance(network, one, other)
    assert found.network == network.name
    assert found.num_images == (30, 30)
    assert found.width == network.width == 24
    assert not found.few_images
    assert frechet_distance(network, one, one).value == pytest.approx(0.0, abs=1e-6)


def test_few_images_are_warned_of_and_one_is_refused(network, caplog):
    """No more images than features make the figure too large; without two there is no covariance."""
    few, enough = (feature_statistics(network, [pictures(count, 1)]) for count in (23, 31))
    with caplog.at_level(logging.WARNING):
        assert frechet_distance(network, few, enough).few_images
        frechet_distance(network, few, enough)
    assert len(caplog.messages) == 1
    assert "over 23 and 31 images with 24 features is too large" in caplog.messages[0]
    single = feature_statistics(network, [pictures(1, 1)])
    with pytest.raises(InvalidRequestError, match="at least 2 images for a covariance, found 1"):
        frechet_distance(network, single, enough)


def test_features_that_make_no_sense_are_refused():
    """Another width, or NaN, would spoil every figure after it."""
    with pytest.raises(InvalidRequestError, match=r"length 3, found a tensor of shape \(2, 4\)"):
        FeatureStatistics(3).update(torch.zeros(2, 4))
    with pytest.raises(InvalidRequestError, match="with NaN or infinity"):
        FeatureStatistics(3).update(torch.full((2, 3), torch.nan))


def test_it_agrees_with_torch_fidelity():
    """On the same vectors torch-fidelity 0.4.0 finds 2.3815546619 (its value, recorded)."""
    generator = torch.Generator().manual_seed(0)
    sets = torch.randn(2000, 64, generator=generator), torch.randn(1500, 64, generator=generator) * 0.9 + 0.1
    found = []
    for vectors in sets:
        statistics = FeatureStatistics(64)
        statistics.update(vectors)
        found += [statistics.mean, statistics.covariance()]
    assert gaussian_distance(*found) == pytest.approx(2.3815546619, rel=1e-6)


def test_statistics_that_were_measured_before():
    """Mean, covariance and number of vectors are all there is to them; more vectors may follow."""
    vectors = torch.randn(30, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    first, whole = FeatureStatistics(5), FeatureStatistics(5)
    first.update(vectors[:20])
    whole.update(vectors)
    again = FeatureStatistics.of(first.mean, first.covariance(), count=20)
    again.update(vectors[20:])
    assert again.count == 30
    torch.testing.assert_close(again.mean, whole.mean)
    torch.testing.assert_close(again.covariance(), whole.covariance())
    with pytest.raises(InvalidRequestError, match="at least 2"):
        FeatureStatistics.of(first.mean, first.covariance(), count=1)
