"""The diffusion head: loss, sampling, and its behaviour on odd input."""

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fluid_core.errors import IncompatibleComponentsError, InvalidRequestError, InvalidTokensError
from fluid_core.exchange import Guidance, HeadContext, SamplerSettings, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import ContinuousTokens, DiscreteTokens, Grid
from fluid_heads.diffusion.head import DiffusionHead
from fluid_heads.diffusion.noise_schedule import (
    NoiseSchedule,
    evenly_spaced_timesteps,
    quadratic_timesteps,
    spaced_timesteps,
)
from fluid_heads.diffusion.options import DiffusionOptions
from fluid_heads.plugin import fluid_register_heads

CHANNELS, WIDTH = 3, 8
SPACE = ContinuousTokens(grid=Grid(height=2, width=2), channels=CHANNELS)


def generator(seed: int = 0) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


def keys(count: int, seed: int = 0) -> KeyedRandom:
    """A random source with one row per token."""
    return KeyedRandom.from_generator(generator(seed), count)


def random_head(options: DiffusionOptions | None = None) -> DiffusionHead:
    """A head whose zero-initialised layers have values too, so that everything has an effect."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        head = DiffusionHead(SPACE, WIDTH, options or DiffusionOptions(width=16, depth=2, num_sampling_steps=12))
        for parameter in head.parameters():
            nn.init.normal_(parameter, std=0.2)
    return head


@pytest.fixture
def head() -> DiffusionHead:
    """A small head."""
    return random_head()


@pytest.fixture
def condition() -> Tensor:
    """Hidden vectors of five tokens."""
    return torch.randn(5, WIDTH, generator=generator(2))


@pytest.fixture
def target() -> Tensor:
    """Five tokens."""
    return torch.randn(5, CHANNELS, generator=generator(4))


def test_defaults_are_the_papers_network_and_a_quarter_of_its_steps() -> None:
    """Six blocks of the backbone's width. 25 quadratic steps do as well (docs/heads.md) as the 100 even ones."""
    context = HeadContext(token_space=SPACE, width=WIDTH, token_embedding=SPACE.embedding(WIDTH))
    component = next(c for c in fluid_register_heads() if c.name == "diffusion")
    head = component.build(component.options(), context)
    assert len(head.network.blocks) == 6
    assert head.network.input_projection.out_features == WIDTH
    assert head.sampler(SamplerSettings()).num_steps == 25
    assert (head.options.spacing, DiffusionOptions.predecessor().spacing) == ("quadratic", "even")
    assert DiffusionOptions.predecessor().num_sampling_steps == 100
    assert {"network.input_projection.weight", "network.blocks.5.modulation.bias"} <= set(head.state_dict())


def test_the_schedule_is_no_part_of_the_state(head: DiffusionHead) -> None:
    """State holds exactly the parameters: tables are made anew."""
    assert set(head.state_dict()) == {name for name, _ in head.named_parameters()}
    assert not list(head.buffers())


def test_a_fresh_head_predicts_zero_noise(condition: Tensor, target: Tensor) -> None:
    """Zero-initialised output: mse is the mean square of the drawn noise."""
    head = DiffusionHead(SPACE, WIDTH, DiffusionOptions(width=16, depth=2))
    noise = torch.randn(5, 4, CHANNELS, generator=generator(1))
    loss = head.loss_at(condition, target, timesteps=torch.randint(1000, (5, 4), generator=generator(1)), noise=noise)
    torch.testing.assert_close(loss.parts["mse"], noise.square().mean(dim=(1, 2)))


def test_loss_is_the_sum_of_its_parts(head: DiffusionHead, condition: Tensor, target: Tensor) -> None:
    """`total` is mse + vb, per token, and depends on the condition."""
    loss = head.loss(condition, target, random=keys(5))
    assert loss.total.shape == (5,)
    assert set(loss.parts) == {"mse", "vb"}
    torch.testing.assert_close(loss.total.detach(), loss.parts["mse"] + loss.parts["vb"])
    assert not torch.allclose(head.loss(condition + 1.0, target, random=keys(5)).total, loss.total)


def test_several_timesteps_are_the_mean_of_separate_computations(condition: Tensor, target: Tensor) -> None:
    """The draws of `loss` and the average over them are as separate calls would give."""
    head = random_head(DiffusionOptions(width=16, depth=2, timesteps_per_token=3))
    together = head.loss(condition, target, random=keys(5))
    random = keys(5)
    timesteps, noise = random.integers(1000, (3,)), random.normal((3, CHANNELS))
    separate = [
        head.loss_at(condition, target, timesteps=timesteps[:, [draw]], noise=noise[:, [draw]]) for draw in range(3)
    ]
    torch.testing.assert_close(together.total, torch.stack([loss.total for loss in separate]).mean(dim=0))
    for part in ("mse", "vb"):
        expected = torch.stack([loss.parts[part] for loss in separate]).mean(dim=0)
        torch.testing.assert_close(together.parts[part], expected)


def test_one_condition_is_projected_once(condition: Tensor, target: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not depend on the timestep is not repeated for each of them in training, nor in fused sampling.

    The reference sampler repeats it, as the predecessor does.
    """
    head = random_head(DiffusionOptions(width=16, depth=2, timesteps_per_token=4))
    rows: list[int] = []
    head.network.condition_projection.register_forward_hook(lambda _m, args, _out: rows.append(len(args[0])))
    head.loss(condition, target, random=keys(5))
    assert rows == [5]
    head.sampler(SamplerSettings(num_steps=7, backend="reference"))(condition, SamplingRequest(random=keys(5)))
    assert rows == [5] * 8
    # The fused sampler has a copy of the layer.
    sampler = head.sampler(SamplerSettings(num_steps=7, backend="fused"))
    projected: list[int] = []
    packed = sampler._denoisers._packed
    assert packed is not None
    layer = packed.condition_projection
    monkeypatch.setattr(packed, "condition_projection", lambda x: (projected.append(len(x)), layer(x))[1])
    sampler(condition, SamplingRequest(random=keys(5)))
    assert projected == [5]


def test_timesteps_are_drawn_uniformly(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 0 to 999, all equally often."""
    head = random_head(DiffusionOptions(width=4, depth=1, timesteps_per_token=50))
    drawn: list[Tensor] = []
    original = head.network.embed_timesteps
    monkeypatch.setattr(head.network, "embed_timesteps", lambda t: (drawn.append(t), original(t))[1])
    head.loss(torch.zeros(400, WIDTH), torch.zeros(400, CHANNELS), random=keys(400))
    timesteps = torch.cat([t.reshape(-1) for t in drawn])
    assert timesteps.shape == (20_000,)
    counts = torch.histc(timesteps.float(), bins=10, min=0, max=1000)
    assert bool(((counts - 2000).abs() < 5 * math.sqrt(1800)).all())
    assert int(timesteps.min()) < 5
    assert int(timesteps.max()) > 994


def test_loss_of_a_token_alone_equals_its_loss_in_a_batch(
    head: DiffusionHead, condition: Tensor, target: Tensor
) -> None:
    """Tokens neither see each other nor share random numbers."""
    random = keys(5)
    together = head.loss(condition, target, random=random).total
    chosen = torch.tensor([3])
    alone = head.loss(condition[chosen], target[chosen], random=random.rows(chosen)).total
    torch.testing.assert_close(alone, together[chosen])


def test_float32_under_autocast(head: DiffusionHead, condition: Tensor, target: Tensor) -> None:
    """Autocast of the backbone changes neither losses nor samples, and bf16 conditions are taken."""
    plain = head.loss(condition, target, random=keys(5)).total
    sampler = head.sampler(SamplerSettings())
    sample = sampler(condition, SamplingRequest(random=keys(5)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head.loss(condition, target, random=keys(5)).total, plain)
        assert torch.equal(sampler(condition, SamplingRequest(random=keys(5))), sample)
        half = head.loss(condition.bfloat16(), target, random=keys(5)).total
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, plain, rtol=0.1, atol=0.1)


def test_weights_in_bfloat16(head: DiffusionHead, condition: Tensor, target: Tensor) -> None:
    """Converted weights are used as they are; losses and samples stay float32."""
    exact = head.loss(condition, target, random=keys(5)).total
    head.to(torch.bfloat16)
    loss = head.loss(condition, target, random=keys(5)).total
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=0.1, atol=0.1)
    assert head.sampler(SamplerSettings())(condition, SamplingRequest(random=keys(5))).dtype == torch.float32


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(5, CHANNELS + 1),
        torch.zeros(5),
        torch.zeros(5, CHANNELS, dtype=torch.int64),
        torch.full((5, CHANNELS), math.nan),
    ],
)
def test_wrong_targets_are_refused(head: DiffusionHead, condition: Tensor, wrong: Tensor) -> None:
    """Another number of channels, no channels, whole numbers, not a number."""
    with pytest.raises(InvalidTokensError):
        head.loss(condition, wrong, random=keys(5))


def test_discrete_tokens_are_refused() -> None:
    """Building through the plugin for ids is refused in one sentence."""
    space = DiscreteTokens(grid=Grid(height=2, width=2), vocabulary_size=7)
    context = HeadContext(token_space=space, width=WIDTH, token_embedding=space.embedding(WIDTH))
    component = next(c for c in fluid_register_heads() if c.name == "diffusion")
    with pytest.raises(IncompatibleComponentsError, match="predicts continuous tokens, found discrete"):
        component.build(DiffusionOptions(), context)


def test_sampling_repeats_and_rows_are_independent(head: DiffusionHead, condition: Tensor) -> None:
    """The same keys give the same token, alone or in a batch; other keys give another."""
    sampler = head.sampler(SamplerSettings(num_steps=40))
    random = keys(5)
    together = sampler(condition, SamplingRequest(random=random))
    again = sampler(condition, SamplingRequest(random=keys(5)))
    assert torch.equal(again, together)
    chosen = torch.tensor([4, 0])
    alone = sampler(condition[chosen], SamplingRequest(random=random.rows(chosen)))
    torch.testing.assert_close(alone, together[chosen], rtol=1e-4, atol=1e-5)
    other = sampler(condition, SamplingRequest(random=keys(5, seed=8)))
    assert bool(((other - together).abs().amax(dim=1) > 1e-3).all())


def test_temperature_multiplies_the_noise_of_the_steps(head: DiffusionHead, condition: Tensor) -> None:
    """Temperature 0 is the course of means; the noise that x starts from stays."""
    sampler = head.sampler(SamplerSettings())
    initial = torch.randn(5, CHANNELS, generator=generator(6))
    noise = torch.randn(12, 5, CHANNELS, generator=generator(7)).unbind(0)
    cold = list(sampler.reverse_process(condition, initial=initial, step_noise=noise, temperature=0.0))
    assert all(torch.equal(step.sample, step.mean) for step in cold)
    half = next(iter(sampler.reverse_process(condition, initial=initial, step_noise=noise, temperature=0.5)))
    expected = half.mean + 0.5 * torch.exp(0.5 * half.log_variance) * noise[0]
    torch.testing.assert_close(half.sample, expected)
    assert torch.equal(half.mean, cold[0].mean)
    repeated = [sampler(condition, SamplingRequest(random=keys(5), temperature=0.0)) for _ in range(2)]
    assert torch.equal(*repeated)


def test_guidance_scale_one_is_no_guidance(head: DiffusionHead, condition: Tensor) -> None:
    """Scale 1 gives the unguided samples, scale 0 the negative's noise, others something else."""
    sampler = head.sampler(SamplerSettings())
    negative = torch.randn(5, WIDTH, generator=generator(9))

    def draw(scale: float | None) -> Tensor:
        guidance = None if scale is None else Guidance(negative=negative, scale=torch.full((5,), scale))
        return sampler(condition, SamplingRequest(random=keys(5), guidance=guidance))

    torch.testing.assert_close(draw(1.0), draw(None), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(draw(3.0), draw(None), atol=1e-2)


def test_guidance_mixes_noise_and_keeps_the_conditional_variance(head: DiffusionHead, condition: Tensor) -> None:
    """One step against the equations, with a scale of its own for every token."""
    negative = torch.randn(5, WIDTH, generator=generator(9))
    scale = torch.tensor([0.0, 1.0, 2.0, 3.0, 7.5])
    x = torch.randn(5, CHANNELS, generator=generator(6))

    def step(vectors: Tensor, guidance: Guidance | None = None) -> tuple[Tensor, Tensor]:
        unlimited = random_head(DiffusionOptions(width=16, depth=2, token_limit=None))
        process = unlimited.sampler(SamplerSettings(num_steps=5)).reverse_process(
            vectors, initial=x, step_noise=[x] * 5, guidance=guidance
        )
        first = next(iter(process))
        return first.predicted_clean, first.log_variance

    conditional, variance = step(condition)
    unconditional, _ = step(negative)
    guided, guided_variance = step(condition, Guidance(negative=negative, scale=scale))
    # The predicted clean token is linear in the predicted noise, so it mixes alike.
    expected = unconditional + scale[:, None] * (conditional - unconditional)
    torch.testing.assert_close(guided, expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(guided_variance, variance, rtol=1e-5, atol=1e-5)


def test_token_limit_holds_at_every_step(condition: Tensor) -> None:
    """The predicted clean token never leaves the limit, which without it it does."""
    options = {"width": 16, "depth": 2, "num_sampling_steps": 12}
    initial = torch.randn(5, CHANNELS, generator=generator(6))

    def largest(limit: float | None) -> float:
        sampler = random_head(DiffusionOptions(token_limit=limit, **options)).sampler(SamplerSettings())
        noise = [initial] * 12
        steps = sampler.reverse_process(condition, initial=initial, step_noise=noise)
        return max(float(step.predicted_clean.abs().max()) for step in steps)

    assert largest(1.5) <= 1.5
    assert largest(None) > 5.0


@pytest.mark.parametrize("num_steps", [1, 2, 3, 981])
def test_any_number_of_steps(num_steps: int, condition: Tensor) -> None:
    """From a single step to every timestep: finite tokens, and as many evaluations as asked for."""
    head = random_head(DiffusionOptions(width=4, depth=1))
    calls = []
    head.network.register_forward_hook(lambda *_: calls.append(1))
    sampler = head.sampler(SamplerSettings(num_steps=num_steps, backend="reference"))
    sample = sampler(condition[:1], SamplingRequest(random=keys(1)))
    assert bool(torch.isfinite(sample).all())
    assert len(calls) == sampler.num_steps == num_steps


def test_zero_tokens(head: DiffusionHead) -> None:
    """No tokens in, none out, with and without guidance; the loss is empty too."""
    nothing = torch.empty(0, WIDTH)
    sampler = head.sampler(SamplerSettings())
    for guidance in (None, Guidance(negative=nothing, scale=torch.empty(0))):
        sample = sampler(nothing, SamplingRequest(random=keys(0), guidance=guidance))
        assert sample.shape == (0, CHANNELS)
        assert sample.dtype == torch.float32
    assert head.loss(nothing, torch.empty(0, CHANNELS), random=keys(0)).total.shape == (0,)


def test_requests_without_meaning_are_refused(head: DiffusionHead, condition: Tensor) -> None:
    """Steps the process does not have, temperatures and shapes that do not fit."""
    for num_steps, expected in ((0, "at least 1"), (-3, "at least 1"), (982, "from 1 to 981")):
        with pytest.raises(InvalidRequestError, match=f"'num_sampling_steps' must be .*{expected}.*found {num_steps}"):
            head.sampler(SamplerSettings(num_steps=num_steps))
    sampler = head.sampler(SamplerSettings())
    with pytest.raises(InvalidRequestError, match=r"temperature of 0 or more, found -0\.5"):
        sampler(condition, SamplingRequest(random=keys(5), temperature=-0.5))
    with pytest.raises(InvalidRequestError, match="4 rows for 5 tokens"):
        sampler(condition, SamplingRequest(random=keys(4)))
    guidance = Guidance(negative=condition[:2], scale=torch.ones(2))
    with pytest.raises(InvalidRequestError, match="guidance with negative vectors"):
        sampler(condition, SamplingRequest(random=keys(5), guidance=guidance))


@pytest.mark.parametrize(
    "options",
    [
        {"width": 0},
        {"depth": 0},
        {"timesteps_per_token": 0},
        {"num_sampling_steps": 0},
        {"num_sampling_steps": 1001},
        {"first_timestep": 1000},
        {"first_timestep": 23},
        {"token_limit": 0.0},
        {"token_limit": float("inf")},
        {"token_scale": 0},
        {"token_scale": float("nan")},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    """Each names the option; the default of 25 steps does not fit a process that starts at 23."""
    with pytest.raises(ValueError, match=next(iter(options))):
        DiffusionOptions(**options)


@pytest.mark.parametrize("options", [{"token_limit": "x"}, {"token_scale": "1"}, {"token_scale": True}])
def test_options_of_a_wrong_type_are_refused(options: dict[str, Any]) -> None:
    """Each names the option; whole numbers may stand for real ones, and None for no limit."""
    with pytest.raises(TypeError, match=f"'{next(iter(options))}' must be a finite number above 0, found"):
        DiffusionOptions(**options)
    assert DiffusionOptions(token_scale=1, token_limit=4) == DiffusionOptions(token_scale=1.0, token_limit=4.0)
    assert DiffusionOptions(token_limit=None).token_limit is None


def test_meta_device_and_reset(condition: Tensor, target: Tensor) -> None:
    """A head laid out on the meta device becomes usable by `reset_parameters`, tables included."""
    with torch.device("meta"):
        head = DiffusionHead(SPACE, WIDTH, DiffusionOptions(width=16, depth=2))
    head.to_empty(device="cpu").reset_parameters()
    assert bool(torch.isfinite(head.loss(condition, target, random=keys(5)).total).all())
    assert bool(torch.isfinite(head.sampler(SamplerSettings())(condition, SamplingRequest(random=keys(5)))).all())


def test_a_deep_copy_is_independent(head: DiffusionHead, condition: Tensor) -> None:
    """As for a moving average of weights."""
    duplicate = copy.deepcopy(head)
    before = head.sampler(SamplerSettings())(condition, SamplingRequest(random=keys(5)))
    nn.init.zeros_(duplicate.network.output_projection.weight)
    assert torch.equal(head.sampler(SamplerSettings())(condition, SamplingRequest(random=keys(5))), before)
    assert not torch.equal(duplicate.sampler(SamplerSettings())(condition, SamplingRequest(random=keys(5))), before)


def test_spacings() -> None:
    """Even spacing includes both ends, quadratic spacing is finer near the clean token, and both have names."""
    assert evenly_spaced_timesteps(5, first_timestep=980) == [0, 245, 490, 735, 980]
    assert evenly_spaced_timesteps(1, first_timestep=980) == [980]
    assert evenly_spaced_timesteps(1000) == list(range(1000))
    assert quadratic_timesteps(5, first_timestep=980) == [0, 61, 245, 551, 980]
    assert quadratic_timesteps(1, first_timestep=980) == [980]
    assert spaced_timesteps("even", 5, first_timestep=980) == evenly_spaced_timesteps(5, first_timestep=980)
    assert spaced_timesteps("quadratic", 5, first_timestep=980) == quadratic_timesteps(5, first_timestep=980)


@pytest.mark.parametrize("first_timestep", [0, 1, 9, 300, 999])
def test_quadratic_timesteps_rise_for_any_number_of_steps(first_timestep: int) -> None:
    """Both ends are included and none comes twice, however many are asked for; too many are refused."""
    for num_steps in range(2, first_timestep + 2):
        timesteps = quadratic_timesteps(num_steps, first_timestep=first_timestep)
        assert (timesteps[0], timesteps[-1], len(timesteps)) == (0, first_timestep, num_steps)
        assert all(before < after for before, after in itertools.pairwise(timesteps))
    assert quadratic_timesteps(first_timestep + 1, first_timestep=first_timestep) == list(range(first_timestep + 1))
    with pytest.raises(InvalidRequestError, match=f"Expected 1 to {first_timestep + 1} sampling steps"):
        quadratic_timesteps(first_timestep + 2, first_timestep=first_timestep)


def test_respacing_keeps_the_signal_levels() -> None:
    """The coarse process has the fine one's signal level at every timestep it keeps."""
    fine = NoiseSchedule.cosine()
    coarse = NoiseSchedule.cosine([10, 500, 980])
    torch.testing.assert_close(coarse.alphas_cumprod, fine.alphas_cumprod[[10, 500, 980]])
    torch.testing.assert_close((1.0 - coarse.betas).cumprod(dim=0), coarse.alphas_cumprod, rtol=1e-12, atol=0.0)


def test_token_scale_is_the_same_head_for_smaller_tokens(condition: Tensor, target: Tensor) -> None:
    """Scaling inside the head equals scaling outside of it: loss of scaled tokens, and samples scaled back."""
    plain = random_head(DiffusionOptions(width=16, depth=2, num_sampling_steps=12, token_limit=5.0 * 0.25))
    scaled = random_head(DiffusionOptions(width=16, depth=2, num_sampling_steps=12, token_scale=0.25))
    torch.testing.assert_close(
        scaled.loss(condition, target, random=keys(5)).total, plain.loss(condition, 0.25 * target, random=keys(5)).total
    )
    request = [SamplingRequest(random=keys(5)) for _ in range(2)]
    small = plain.sampler(SamplerSettings())(condition, request[0])
    torch.testing.assert_close(scaled.sampler(SamplerSettings())(condition, request[1]), small / 0.25)
    assert small.abs().max() > 0


def test_linear_skip_starts_from_the_best_linear_guess(condition: Tensor, target: Tensor) -> None:
    """A fresh head with the skip has the loss of the linear guess, and samples tokens of the right scale."""
    options = DiffusionOptions(width=16, depth=2, linear_skip=True, token_scale=0.5, num_sampling_steps=200)
    head = DiffusionHead(SPACE, WIDTH, options)
    timesteps, noise = torch.full((5, 1), 700), torch.randn(5, 1, CHANNELS, generator=generator(6))
    schedule = NoiseSchedule.cosine()
    signal, sigma = schedule.sqrt_alphas_cumprod[700], schedule.sqrt_one_minus_alphas_cumprod[700]
    x = signal * 0.5 * target + sigma * noise[:, 0]
    guess = sigma / (0.25 * signal**2 + sigma**2) * x
    loss = head.loss_at(condition, target, timesteps=timesteps, noise=noise)
    torch.testing.assert_close(loss.parts["mse"], (guess - noise[:, 0]).square().mean(dim=1).float())
    # Following the linear guess turns noise into normal tokens of unit variance.
    many = head.sampler(SamplerSettings())(torch.zeros(4000, WIDTH), SamplingRequest(random=keys(4000)))
    assert abs(float(many.std()) - 1.0) < 0.1


def test_guidance_is_unchanged_by_the_linear_skip(condition: Tensor) -> None:
    """The guess is the same for both predictions, so that scale 1 stays the conditional one."""
    head = random_head(DiffusionOptions(width=16, depth=2, num_sampling_steps=12, linear_skip=True))
    guidance = Guidance(negative=torch.zeros_like(condition), scale=torch.ones(5))
    plain = head.sampler(SamplerSettings())(condition, SamplingRequest(random=keys(5)))
    guided = head.sampler(SamplerSettings())(condition, SamplingRequest(random=keys(5), guidance=guidance))
    torch.testing.assert_close(guided, plain)
