"""What a tokenizer loses: pictures encoded, decoded and compared with themselves, and what their tokens cost.

The paper compares generation with continuous and discrete tokens; how much of a picture each tokenizer keeps in the
first place bounds both (section 4.1), and is measured here.
"""

import math
from collections.abc import Mapping, Sequence

import attrs
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.evaluation.frechet_distance import (
    FeatureStatistics,
    FrechetDistance,
    feature_statistics,
    frechet_distance,
)
from fluid_core.evaluation.image_similarity import psnr, ssim
from fluid_core.keyed_random import KeyedRandom
from fluid_core.protocols import FeatureNetwork, Tokenizer
from fluid_core.token_space import ContinuousTokens, DiscreteTokens, TokenSpace

LARGEST_PSNR = 100.0
"""In decibels; stands for pictures that come back as they were, up to rounding, so that means stay finite."""

_FLOAT_BITS = 32


@attrs.frozen(kw_only=True)
class CodebookUse:
    """Which ids occur among the tokens of all pictures."""

    vocabulary_size: int
    num_used: int
    perplexity: float
    """Two to the entropy of the ids: how many equally frequent ones would tell as much."""


@attrs.frozen(kw_only=True)
class BitsPerImage:
    """What the tokens of one picture cost, in two ways that should not be confused."""

    stored: float
    """As they lie in memory: ids at log2 of the vocabulary, numbers at 32 bits."""

    stored_as: str
    """What is counted, in words."""

    informative: float | None
    """What they tell about the picture under a fixed and independent distribution for each token; None if unknown."""

    informative_as: str


@attrs.frozen(kw_only=True)
class ReconstructionFigures:
    """Figures of one tokenizer over a set of pictures; means are over pictures."""

    num_images: int
    psnr: float
    """Decibels, at most `LARGEST_PSNR` for a picture."""

    ssim: float
    frechet: FrechetDistance | None
    """None if no feature network was named."""

    tokens_per_image: int
    bits_per_image: BitsPerImage
    codebook: CodebookUse | None
    """None for tokens that are no ids."""


@torch.no_grad()
def reconstruct(
    tokenizer: Tokenizer, images: Float[Tensor, "batch 3 height width"], *, seed: int, first: int = 0
) -> tuple[dict[str, Tensor], Shaped[Tensor, "batch length *token"], Float[Tensor, "batch 3 height width"]]:
    """What `precompute` gives for images in [-1, 1], their tokens, and the images decoded from these, in [-1, 1].

    Randomness, such as a draw from a posterior, follows from `seed` and an image's number, counted from `first`.
    """
    precomputed = tokenizer.precompute(images)
    random = KeyedRandom(torch.arange(first, first + len(images), device=images.device)).child(seed)
    tokens = tokenizer.tokens(precomputed, random=random)
    return precomputed, tokens, tokenizer.decode(tokens).float().clamp(-1.0, 1.0)


def measure_reconstruction(
    tokenizer: Tokenizer,
    batches: Sequence[Float[Tensor, "_ 3 height width"]],
    *,
    seed: int = 0,
    network: FeatureNetwork | None = None,
    originals: FeatureStatistics | None = None,
) -> ReconstructionFigures:
    """Encode and decode pictures in [-1, 1], given in batches on the device of tokenizer and network.

    `originals` are the statistics of the same pictures in `network`, where the caller has them already. Raises
    `InvalidRequestError` without pictures.
    """
    if not batches:
        raise InvalidRequestError("Expected at least one batch of pictures to reconstruct, found none.")
    space = tokenizer.token_space
    signals, similarities = [], []
    found = None if network is None else FeatureStatistics(network.width)
    counts = torch.zeros(space.vocabulary_size, dtype=torch.int64) if isinstance(space, DiscreteTokens) else None
    rate = PosteriorRate()
    first = 0
    for images in batches:
        precomputed, tokens, pictures = reconstruct(tokenizer, images, seed=seed, first=first)
        first += len(images)
        signals.append(psnr(pictures, images).clamp(max=LARGEST_PSNR).cpu())
        similarities.append(ssim(pictures, images).cpu())
        if network is not None and found is not None:
            found.update(network.features(pictures))
        if counts is not None:
            counts += torch.bincount(tokens.flatten().cpu(), minlength=len(counts))
        rate.update(precomputed)
    distance = None
    if network is not None and found is not None:
        distance = frechet_distance(network, originals or feature_statistics(network, batches), found)
    return ReconstructionFigures(
        num_images=first,
        psnr=float(torch.cat(signals).mean()),
        ssim=float(torch.cat(similarities).mean()),
        frechet=distance,
        tokens_per_image=space.grid.length,
        bits_per_image=_bits(space, counts, rate),
        codebook=None if counts is None else codebook_use(counts),
    )


def codebook_use(counts: Int[Tensor, "vocabulary"]) -> CodebookUse:
    """How evenly ids are used, from how often each occurs."""
    return CodebookUse(
        vocabulary_size=len(counts),
        num_used=int((counts > 0).sum()),
        perplexity=2.0 ** _entropy(counts),
    )


class PosteriorRate:
    """How much the posteriors of a variational autoencoder tell, from the `mean` and `log_variance` it precomputes.

    The Kullback-Leibler divergence of each posterior to one normal distribution per channel, fitted to the posteriors
    of all pictures together (the autoencoder's own prior may be far from what it produces, as in Stable Diffusion). It
    is what bits-back coding (Hinton and van Camp, 1993) would spend with that prior.
    """

    def __init__(self) -> None:
        self._means: list[Tensor] = []
        self._log_variances: list[Tensor] = []

    def update(self, precomputed: Mapping[str, Tensor]) -> None:
        """Take in what `precompute` gave for a batch; anything but moments is left alone."""
        if precomputed.keys() == {"mean", "log_variance"}:
            self._means.append(precomputed["mean"].double().cpu())
            self._log_variances.append(precomputed["log_variance"].double().cpu())

    def bits_per_image(self) -> float | None:
        """Mean over pictures, in bits; None if there were no moments. Channels are the second axis."""
        if not self._means:
            return None
        mean, log_variance = torch.cat(self._means), torch.cat(self._log_variances)
        axes = [axis for axis in range(mean.ndim) if axis != 1]
        centre = mean.mean(dim=axes, keepdim=True)
        spread = (log_variance.exp() + (mean - centre).square()).mean(dim=axes, keepdim=True)
        nats = 0.5 * (spread.log() - log_variance + (log_variance.exp() + (mean - centre).square()) / spread - 1.0)
        return float(nats.flatten(1).sum(dim=1).mean()) / math.log(2.0)


def _bits(space: TokenSpace, counts: Tensor | None, rate: PosteriorRate) -> BitsPerImage:
    length = space.grid.length
    if isinstance(space, DiscreteTokens) and counts is not None:
        return BitsPerImage(
            stored=length * math.log2(space.vocabulary_size),
            stored_as=f"{length} ids of {space.vocabulary_size}",
            informative=length * _entropy(counts),
            informative_as="entropy of the ids over these pictures",
        )
    size = math.prod(space.token_shape)
    channels = "channels" if isinstance(space, ContinuousTokens) else "numbers"
    bits = rate.bits_per_image()
    return BitsPerImage(
        stored=float(length * size * _FLOAT_BITS),
        stored_as=f"{length} tokens of {size} {channels}, as numbers of {_FLOAT_BITS} bits",
        informative=bits,
        informative_as=(
            "not known: the encoding adds no noise, so nothing says how many of these bits matter"
            if bits is None
            else "divergence of the posteriors from one normal distribution per channel"
        ),
    )


def _entropy(counts: Int[Tensor, "vocabulary"]) -> float:
    """Bits per id, from how often each occurs. Of few ids it comes out too small."""
    shares = counts[counts > 0].double() / counts.sum()
    return float(-(shares * shares.log2()).sum())
