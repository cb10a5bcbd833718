"""The Frechet distance between two sets of pictures, on the features of a named network.

Heusel et al. (arXiv 1706.08500) compare the normal distributions with the mean and covariance of the features. With the
features of Inception-v3 it is known as FID. With any other network it is NOT the FID, and figures of different networks
are not comparable: name the network beside every figure.
"""

import logging
from collections.abc import Iterable
from functools import lru_cache

import attrs
import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.protocols import FeatureNetwork

_logger = logging.getLogger(__name__)


class FeatureStatistics:
    """Mean and covariance of feature vectors that come in batches, in float64.

    Batches are merged around their means (Chan et al., 1979), so that nothing is lost where a mean is large beside its
    spread, and the result does not depend on how the vectors were cut into batches.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.count = 0
        """Feature vectors seen."""

        self.mean: Float[Tensor, "width"] = torch.zeros(width, dtype=torch.float64)
        self._scatter = torch.zeros(width, width, dtype=torch.float64)

    @classmethod
    def of(
        cls, mean: Float[Tensor, "width"], covariance: Float[Tensor, "width width"], *, count: int
    ) -> "FeatureStatistics":
        """Statistics of `count` vectors that were measured before. Raises `InvalidRequestError` for less than two."""
        if count < 2:
            raise InvalidRequestError(f"Expected statistics of at least 2 images, found {count}.")
        found = cls(len(mean))
        found.count, found.mean, found._scatter = count, mean.double(), covariance.double() * (count - 1)
        return found

    def update(self, features: Float[Tensor, "batch width"]) -> None:
        """Take in vectors. Raises `InvalidRequestError` for another width, or values that are not finite."""
        if features.shape[1] != self.width or not bool(torch.isfinite(features).all()):
            raise InvalidRequestError(
                f"Expected finite feature vectors of length {self.width}, found a tensor of shape "
                f"{tuple(features.shape)}{'' if features.shape[1] != self.width else ' with NaN or infinity'}."
            )
        added = features.shape[0]
        if added == 0:
            return
        batch = features.detach().to("cpu", torch.float64)
        mean = batch.mean(dim=0)
        centred = batch - mean
        offset = mean - self.mean
        total = self.count + added
        self._scatter += centred.T @ centred + offset.outer(offset) * (self.count * added / total)
        self.mean = self.mean + offset * (added / total)
        self.count = total

    def covariance(self) -> Float[Tensor, "width width"]:
        """Unbiased covariance. Raises `InvalidRequestError` for less than two vectors."""
        if self.count < 2:
            raise InvalidRequestError(f"Expected at least 2 images for a covariance, found {self.count}.")
        return self._scatter / (self.count - 1)


def feature_statistics(
    network: FeatureNetwork, batches: Iterable[Float[Tensor, "_ 3 height width"]]
) -> FeatureStatistics:
    """Statistics of the features of images in [-1, 1], given in batches on the network's device."""
    statistics = FeatureStatistics(network.width)
    for images in batches:
        statistics.update(network.features(images))
    return statistics


def gaussian_distance(
    mean: Float[Tensor, "width"],
    covariance: Float[Tensor, "width width"],
    other_mean: Float[Tensor, "width"],
    other_covariance: Float[Tensor, "width width"],
) -> float:
    """The squared Frechet (2-Wasserstein) distance between two normal distributions, in float64.

    |m - n|^2 + tr(A) + tr(B) - 2 tr((A^1/2 B A^1/2)^1/2). Written so, every matrix whose root is taken is symmetric:
    eigenvalues are real, rounding makes them at worst slightly negative, and such are taken as zero. The usual root
    of A B needs a general solver, which fails or turns complex where a covariance is singular.
    """
    a, b = covariance.double(), other_covariance.double()
    values, vectors = torch.linalg.eigh((a + a.T) / 2)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    inner = root @ b @ root
    overlap = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp(min=0).sqrt().sum()
    offset = (mean.double() - other_mean.double()).square().sum()
    # Of equal distributions the terms cancel up to rounding.
    return max(0.0, float(offset + a.trace() + b.trace() - 2 * overlap))


@attrs.frozen(kw_only=True)
class FrechetDistance:
    """A distance with what it was measured with: the figure alone means nothing."""

    value: float
    network: str
    """Name of the feature network, with its weights."""

    num_images: tuple[int, int]
    """Images on both sides."""

    width: int
    """Length of a feature vector."""

    @property
    def few_images(self) -> bool:
        """Whether a side has no more images than features, so that its covariance is singular."""
        return min(self.num_images) <= self.width


def frechet_distance(network: FeatureNetwork, one: FeatureStatistics, other: FeatureStatistics) -> FrechetDistance:
    """The distance between two sets of images whose features in `network` these are.

    With few images it comes out too large, and a warning says so (once for each pair of numbers) where there are no
    more images than features: compare such figures for the same numbers of images alone. Raises `InvalidRequestError`
    for less than two images on a side.
    """
    value = gaussian_distance(one.mean, one.covariance(), other.mean, other.covariance())
    found = FrechetDistance(value=value, network=network.name, num_images=(one.count, other.count), width=network.width)
    if found.few_images:
        _warn_of_few_images(one.count, other.count, network.width)
    return found


@lru_cache(maxsize=64)
def _warn_of_few_images(count: int, other_count: int, width: int) -> None:
    """Cached, so that a table of many distances says it once."""
    _logger.warning(
        "A Frechet distance over %d and %d images with %d features is too large by an unknown amount: take more than "
        "%d images, or compare it with others of the same numbers alone.",
        count,
        other_count,
        width,
        width,
    )
