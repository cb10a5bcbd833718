"""A briefly trained diffusion head samples sanely with default settings, and not with the predecessor's."""

import pytest
import torch
from torch import Tensor

from fluid_core.exchange import Guidance, SamplerSettings, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import ContinuousTokens, Grid
from fluid_heads.diffusion.head import DiffusionHead
from fluid_heads.diffusion.options import SOLVERS, SPACINGS, DiffusionOptions

CHANNELS, WIDTH, NUM_TRAINING_STEPS = 16, 32, 150
SPACE = ContinuousTokens(grid=Grid(height=4, width=4), channels=CHANNELS)


def toy_tokens(num_tokens: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Hidden vectors, and tokens of unit variance that follow them up to a spread of 0.3."""
    mixing = torch.randn(WIDTH, CHANNELS, generator=torch.Generator().manual_seed(5)) / WIDTH**0.5
    condition = torch.randn(num_tokens, WIDTH, generator=generator)
    spread = 0.3 * torch.randn(num_tokens, CHANNELS, generator=generator)
    return condition, 0.95 * condition @ mixing + spread


def trained_head(**options: bool) -> DiffusionHead:
    """A head after 150 steps of training: a few seconds."""
    generator = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = DiffusionHead(SPACE, WIDTH, DiffusionOptions(width=64, depth=3, **options))
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3)
    for _ in range(NUM_TRAINING_STEPS):
        condition, target = toy_tokens(128, generator)
        loss = head.loss(condition, target, random=KeyedRandom.from_generator(generator, 128)).total.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return head


@pytest.fixture(scope="module")
def brief_head() -> DiffusionHead:
    """A briefly trained head with default options."""
    return trained_head()


@pytest.fixture(scope="module")
def brief_head_with_skip() -> DiffusionHead:
    """The same training with the linear skip, which leaves the network less to learn."""
    return trained_head(linear_skip=True)


def spread_of_samples(head: DiffusionHead, num_steps: int, scale: float | None = None, **options: str | float) -> float:
    """Standard deviation of samples as a multiple of the true tokens'."""
    condition, target = toy_tokens(256, torch.Generator().manual_seed(77))
    guidance = None
    if scale is not None:
        guidance = Guidance(negative=torch.zeros_like(condition), scale=torch.full((256,), scale))
    request = SamplingRequest(random=KeyedRandom(torch.arange(256)), guidance=guidance)
    sample = head.sampler(SamplerSettings(num_steps=num_steps, options=options))(condition, request)
    return float(sample.std() / target.std())


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("num_steps", [100, 50, 20])
def test_default_settings_sample_sanely(brief_head: DiffusionHead, num_steps: int, spacing: str) -> None:
    """Within 25% of the true standard deviation from the default number of steps on."""
    assert 0.8 < spread_of_samples(brief_head, num_steps, spacing=spacing) < 1.25


def test_few_steps_stay_bounded(brief_head: DiffusionHead) -> None:
    """With half of the default's steps the first of them, near noise, weigh more: at most 1.6 times the width."""
    assert 0.8 < spread_of_samples(brief_head, 10) < 1.6


@pytest.mark.parametrize("num_steps", [100, 50, 25, 10])
@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_samples_sanely_with_the_linear_skip(
    brief_head_with_skip: DiffusionHead, solver: str, num_steps: int
) -> None:
    """Within 25% of the true standard deviation, all else at its default."""
    assert 0.8 < spread_of_samples(brief_head_with_skip, num_steps, solver=solver) < 1.25


@pytest.mark.parametrize("num_steps", [100, 50, 25, 10])
@pytest.mark.parametrize("solver", ["ddim", "dpm++"])
def test_solvers_without_noise_keep_early_errors(brief_head: DiffusionHead, solver: str, num_steps: int) -> None:
    """What the noise of ancestral sampling makes up for stays: up to three times the width from 980, 1.5 from 900."""
    from_900 = spread_of_samples(brief_head, num_steps, solver=solver, first_timestep=900)
    assert 0.8 < from_900 < 1.5
    assert from_900 < spread_of_samples(brief_head, num_steps, solver=solver) < 3.0


@pytest.mark.parametrize("rescale", [0.0, 1.0])
@pytest.mark.parametrize("solver", SOLVERS)
def test_default_settings_stay_bounded_under_guidance(brief_head: DiffusionHead, solver: str, rescale: float) -> None:
    """Guidance widens the samples, as it should, but they do not run away."""
    assert spread_of_samples(brief_head, 50, scale=3.0, solver=solver, guidance_rescale=rescale) < 4.0


def test_the_predecessors_settings_run_away(brief_head: DiffusionHead) -> None:
    """The same weights, from the last timestep and without a limit: the trap this guards against is real."""
    predecessor = DiffusionHead(SPACE, WIDTH, DiffusionOptions.predecessor(width=64, depth=3))
    predecessor.load_state_dict(brief_head.state_dict())
    for num_steps in (100, 10):
        assert spread_of_samples(predecessor, num_steps) > 100.0
