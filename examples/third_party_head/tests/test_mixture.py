"""The Gaussian mixture against torch.distributions, and its samples against its own moments."""

import math

import pytest
import torch
from fluid_gaussian_mixture.head import GaussianMixtureHead
from fluid_gaussian_mixture.plugin import GaussianMixtureOptions, fluid_register_heads
from torch import Tensor, distributions, nn

from fluid_core.errors import IncompatibleComponentsError, InvalidRequestError, InvalidTokensError
from fluid_core.exchange import Guidance, HeadContext, SamplerSettings, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import ContinuousTokens, DiscreteTokens, Grid

CHANNELS, WIDTH = 3, 8
GRID = Grid(height=2, width=2)
SPACE = ContinuousTokens(grid=GRID, channels=CHANNELS)


def context_for(space: ContinuousTokens | DiscreteTokens) -> HeadContext:
    """What core would offer."""
    return HeadContext(token_space=space, width=WIDTH, token_embedding=space.embedding(WIDTH))


def keys(count: int) -> KeyedRandom:
    """A random source with one row per token."""
    return KeyedRandom.from_generator(torch.Generator().manual_seed(0), count)


def vectors(count: int, seed: int = 1) -> Tensor:
    """Hidden vectors."""
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def head() -> GaussianMixtureHead:
    """Four components whose parameters all depend on the condition."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        head = GaussianMixtureHead(context_for(SPACE), GaussianMixtureOptions(num_components=4))
        nn.init.normal_(head.projection.weight, std=0.4)
    return head


def reference(head: GaussianMixtureHead, condition: Tensor) -> distributions.MixtureSameFamily:
    """The same mixture as torch.distributions has it."""
    log_weights, means, scales = head.mixture(head.parameters_of(condition))
    return distributions.MixtureSameFamily(
        distributions.Categorical(logits=log_weights), distributions.Independent(distributions.Normal(means, scales), 1)
    )


def test_the_likelihood_is_exact(head: GaussianMixtureHead) -> None:
    """Nats per token equal torch's, and the loss is that per channel."""
    condition, target = vectors(50), torch.randn(50, CHANNELS, generator=torch.Generator().manual_seed(3))
    loss = head.loss(condition, target, random=keys(50))
    expected = -reference(head, condition).log_prob(target)
    torch.testing.assert_close(loss.parts["nats"], expected.detach())
    torch.testing.assert_close(loss.total, expected / CHANNELS)


def test_samples_match_the_moments(head: GaussianMixtureHead) -> None:
    """Mean, variance and average likelihood of many samples for one hidden vector."""
    num_draws = 40_000
    condition = vectors(1).expand(num_draws, -1)
    sample = head.sampler(SamplerSettings())(condition, SamplingRequest(random=keys(num_draws)))
    expected = reference(head, vectors(1))
    deviation = expected.variance[0].sqrt()
    assert bool(((sample.mean(dim=0) - expected.mean[0]).abs() < 4 * deviation / num_draws**0.5).all())
    torch.testing.assert_close(sample.var(dim=0), expected.variance[0], rtol=0.05, atol=0.0)
    # Moments alone would not tell a mixture from one wide Gaussian; the entropy does.
    drawn = expected.sample((num_draws,))[:, 0]
    nats = [-float(reference(head, condition).log_prob(tokens).mean().detach()) for tokens in (sample, drawn)]
    assert nats[0] == pytest.approx(nats[1], abs=0.03)


def test_temperature_narrows_the_mixture(head: GaussianMixtureHead) -> None:
    """At 0 the mean of the likeliest component; for one component the spread is proportional to the temperature."""
    condition = vectors(6)
    cold = head.sampler(SamplerSettings())(condition, SamplingRequest(random=keys(6), temperature=0.0))
    log_weights, means, _ = head.mixture(head.parameters_of(condition))
    torch.testing.assert_close(cold, means[torch.arange(6), log_weights.argmax(dim=1)].detach())

    single = GaussianMixtureHead(context_for(SPACE), GaussianMixtureOptions(num_components=1))
    mean = single.mixture(single.parameters_of(condition))[1][:, 0].detach()
    sampler = single.sampler(SamplerSettings(num_steps=1))
    warm = sampler(condition, SamplingRequest(random=keys(6)))
    half = sampler(condition, SamplingRequest(random=keys(6), temperature=0.5))
    torch.testing.assert_close(half - mean, 0.5 * (warm - mean))


def test_guidance_extrapolates_the_parameters(head: GaussianMixtureHead) -> None:
    """Scale 1 is exactly the conditional mixture, 0 the negative; 3 is that of the extrapolated hidden vector."""
    condition, negative = vectors(64), vectors(64, seed=9)

    def draw(hidden: Tensor, scale: float | None = None) -> Tensor:
        guidance = None if scale is None else Guidance(negative=negative, scale=torch.full((64,), scale))
        return head.sampler(SamplerSettings())(hidden, SamplingRequest(random=keys(64), guidance=guidance))

    assert torch.equal(draw(condition, 1.0), draw(condition))
    assert torch.equal(draw(condition, 0.0), draw(negative))
    torch.testing.assert_close(
        draw(condition, 3.0), draw(negative + 3.0 * (condition - negative)), rtol=1e-4, atol=1e-4
    )


def test_training_finds_two_clusters() -> None:
    """On tokens in two clusters, which of them depending on the condition, the loss comes near the entropy."""
    generator = torch.Generator().manual_seed(4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        head = GaussianMixtureHead(context_for(SPACE), GaussianMixtureOptions(num_components=4))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.03)
    spread = 0.1
    for _ in range(300):
        sign = torch.randint(2, (256, 1), generator=generator) * 2.0 - 1.0
        target = sign + spread * torch.randn(256, CHANNELS, generator=generator)
        loss = head.loss(torch.zeros(256, WIDTH), target, random=keys(256)).total.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    per_channel = 0.5 * math.log(2 * math.pi * math.e * spread**2)
    assert float(loss.detach()) == pytest.approx(per_channel + math.log(2.0) / CHANNELS, abs=0.1)


def test_float32_under_autocast(head: GaussianMixtureHead) -> None:
    """Autocast changes nothing."""
    condition, target = vectors(5), torch.zeros(5, CHANNELS)
    plain = head.loss(condition, target, random=keys(5)).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head.loss(condition, target, random=keys(5)).total, plain)


def test_odd_input(head: GaussianMixtureHead) -> None:
    """No tokens, wrong tokens, wrong requests."""
    sampler = head.sampler(SamplerSettings())
    assert sampler(torch.empty(0, WIDTH), SamplingRequest(random=keys(0))).shape == (0, CHANNELS)
    assert head.loss(torch.empty(0, WIDTH), torch.empty(0, CHANNELS), random=keys(0)).total.shape == (0,)
    with pytest.raises(InvalidTokensError):
        head.loss(vectors(2), torch.zeros(2, CHANNELS + 1), random=keys(2))
    with pytest.raises(InvalidRequestError, match="one step, found num_steps=5"):
        head.sampler(SamplerSettings(num_steps=5))
    for temperature in (-1.0, math.nan):
        with pytest.raises(InvalidRequestError, match="temperature of 0 or more"):
            sampler(vectors(2), SamplingRequest(random=keys(2), temperature=temperature))


def test_declaration() -> None:
    """The plugin's declaration is valid, builds with its defaults, and refuses ids."""
    (component,) = fluid_register_heads()
    assert component.problems() == []
    head = component.build(component.options(), context_for(SPACE))
    assert head.options.num_components == 16
    with pytest.raises(IncompatibleComponentsError, match="continuous tokens, found discrete"):
        component.build(component.options(), context_for(DiscreteTokens(grid=GRID, vocabulary_size=5)))
