"""The solvers of the reverse process: against diffusers' schedulers, and their own promises."""

import math
from collections.abc import Sequence
from pathlib import Path

import attrs
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import Guidance, SamplerBackend, SamplerSettings, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_core.protocols import AdjustableSampling, ReportsBackend
from fluid_core.token_space import ContinuousTokens, Grid
from fluid_heads.denoising.evaluation import Prediction
from fluid_heads.denoising.selection import DenoiserSource
from fluid_heads.diffusion.guidance import guided_noise, rescaled_noise
from fluid_heads.diffusion.head import DiffusionHead
from fluid_heads.diffusion.noise_schedule import NoiseSchedule, evenly_spaced_timesteps
from fluid_heads.diffusion.options import SOLVERS, DiffusionOptions
from fluid_heads.diffusion.sampler import DiffusionSampler
from fluid_heads.diffusion.solvers import Solver
from fluid_heads.diffusion.step_budget import num_steps_at

CHANNELS, WIDTH = 3, 8
COURSES = Path(__file__).parents[1] / "golden" / "data" / "diffusers_courses.safetensors"
RECORDED_LIMIT = 1.2
DETERMINISTIC = tuple(name for name in SOLVERS if name != "ddpm")


def random_head(channels: int = CHANNELS, **options: object) -> DiffusionHead:
    """A small head with values in its zero-initialised layers too."""
    space = ContinuousTokens(grid=Grid(height=2, width=2), channels=channels)
    chosen = DiffusionOptions(**{"width": 16, "depth": 2, "num_sampling_steps": 12, **options})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        head = DiffusionHead(space, WIDTH, chosen)
        for parameter in head.parameters():
            nn.init.normal_(parameter, std=0.2)
    return head


def keys(count: int, seed: int = 0) -> KeyedRandom:
    """A random source with one row per token."""
    return KeyedRandom.from_generator(torch.Generator().manual_seed(seed), count)


@pytest.fixture
def condition() -> Tensor:
    """Hidden vectors of five tokens."""
    return torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(2))


class ScriptedDenoiser:
    """Stands in for the network: gives outputs by step, whatever it is asked."""

    backend = SamplerBackend.REFERENCE

    def __init__(self, outputs: Tensor) -> None:
        self._outputs = outputs

    def begin(self, condition: Tensor, guidance: Guidance | None) -> "ScriptedDenoiser":
        """Nothing to prepare."""
        return self

    def __call__(self, step: int, x: Tensor) -> Prediction:
        """The output of this step; steps are counted down to 0."""
        return Prediction(output=self._outputs[len(self._outputs) - 1 - step], negative=None)


def recorded_names() -> list[str]:
    """All recorded courses."""
    return sorted({name.rsplit(".", 1)[0] for name in load_file(COURSES)})


@pytest.mark.parametrize("name", recorded_names())
def test_courses_of_diffusers(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same outputs and noise give the course of diffusers' scheduler, at every step.

    Its tables are float32, ours float64: they were found to differ by up to 3e-5 of the largest value.
    """
    record = {part: value for key, value in load_file(COURSES).items() for part in [key.removeprefix(f"{name}.")]}
    timesteps = record["timesteps"].tolist()
    asked: list[Sequence[float]] = []

    def scripted(_source: DenoiserSource, steps: Sequence[float]) -> ScriptedDenoiser:
        asked.append(steps)
        return ScriptedDenoiser(record["outputs"])

    monkeypatch.setattr(DenoiserSource, "along", scripted)
    head = random_head(
        solver=name.split("_")[0],
        spacing="even",
        num_sampling_steps=len(timesteps),
        first_timestep=timesteps[0],
        token_limit=RECORDED_LIMIT if "_limited_" in name else None,
    )
    steps = list(
        head.sampler(SamplerSettings()).reverse_process(
            torch.zeros(len(record["start"]), WIDTH), initial=record["start"], step_noise=record["noise"].unbind(0)
        )
    )
    assert asked == [timesteps[::-1]]
    assert [step.timestep for step in steps] == timesteps
    found = torch.stack([step.sample for step in steps])
    error = (found - record["course"]).abs().max() / record["course"].abs().max()
    assert float(error) < 6e-5


def test_recorded_courses_tell_the_solvers_apart() -> None:
    """The same start and number of steps lead each solver elsewhere: the comparison above can fail."""
    record = load_file(COURSES)
    ends = [record[f"{name}_10.course"][-1] for name in ("ddpm", "ddim", "dpm++", "ddpm_limited")]
    for index, one in enumerate(ends):
        for other in ends[index + 1 :]:
            assert float((one - other).abs().max()) > 0.01


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 17, 981])
def test_the_true_token_is_a_fixed_point(name: str, num_steps: int) -> None:
    """With the true token predicted at every step and no noise, x follows its own mean and ends at the token."""
    schedule = NoiseSchedule.cosine(evenly_spaced_timesteps(num_steps, first_timestep=980))
    solver = Solver(name, schedule)
    token = torch.tensor([[0.3, -1.2, 2.0]])
    x = schedule.sqrt_alphas_cumprod[-1].float() * token
    variance = torch.zeros_like(token)
    for index in reversed(range(num_steps)):
        step = solver.step(
            index, x, clean=token, previous_clean=token, log_variance=variance, noise=variance, temperature=0.0
        )
        expected = schedule.alphas_cumprod_prev[index].sqrt().float() * token
        torch.testing.assert_close(step.sample, expected, rtol=1e-5, atol=1e-6)
        x = step.sample
    torch.testing.assert_close(x, token)


def test_second_order_converges_faster() -> None:
    """For normal tokens, whose course is known exactly, the error of DPM-Solver++ falls with the square of the steps.

    The exact course keeps (x - alpha m) / sqrt(alpha^2 s^2 + sigma^2), for mean m and standard deviation s.
    """
    mean, deviation = 0.7, 0.4
    x_start = torch.tensor([[1.3, -0.2, 0.5]], dtype=torch.float64)

    def error(name: str, num_steps: int) -> float:
        # From 900 to 200: the step from there to the clean token is of first order for both and is left out.
        schedule = NoiseSchedule.cosine([200 + 700 * step // num_steps for step in range(num_steps + 1)])
        solver = Solver(name, schedule)
        x, previous = x_start, None
        for index in reversed(range(1, num_steps + 1)):
            alpha, sigma = schedule.sqrt_alphas_cumprod[index], schedule.sqrt_one_minus_alphas_cumprod[index]
            share = alpha * deviation**2 / (alpha**2 * deviation**2 + sigma**2)
            clean = mean + share * (x - alpha * mean)
            x = solver.step(index, x, clean=clean, previous_clean=previous).sample
            previous = clean
        levels = schedule.alphas_cumprod[[-1, 0]]
        spread = (levels * deviation**2 + 1.0 - levels).sqrt()
        exact = levels[1].sqrt() * mean + (x_start - levels[0].sqrt() * mean) / spread[0] * spread[1]
        return float((x - exact).abs().max())

    first_order, second_order = (error(name, 25) / error(name, 100) for name in ("ddim", "dpm++"))
    assert 3.0 < first_order < 6.0
    assert second_order > 10.0
    assert error("dpm++", 25) < 0.2 * error("ddim", 25)


@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.parametrize("num_steps", [1, 2, 201])
def test_any_number_of_steps(name: str, num_steps: int, condition: Tensor) -> None:
    """From one step to all that there are: finite tokens within the limit, and one token alone as in the batch."""
    sampler = random_head(solver=name, token_limit=2.0, first_timestep=200).sampler(
        SamplerSettings(num_steps=num_steps)
    )
    random = keys(5)
    together = sampler(condition, SamplingRequest(random=random))
    assert bool(torch.isfinite(together).all())
    assert float(together.abs().max()) <= 2.0 + 1e-5
    chosen = torch.tensor([3])
    alone = sampler(condition[chosen], SamplingRequest(random=random.rows(chosen)))
    torch.testing.assert_close(alone, together[chosen], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SOLVERS)
def test_zero_tokens(name: str) -> None:
    """No tokens in, none out, also under rescaled guidance."""
    sampler = random_head(solver=name, guidance_rescale=0.5).sampler(SamplerSettings())
    nothing = torch.empty(0, WIDTH)
    for guidance in (None, Guidance(negative=nothing, scale=torch.empty(0))):
        assert sampler(nothing, SamplingRequest(random=keys(0), guidance=guidance)).shape == (0, CHANNELS)


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_temperature_of_solvers_without_noise(name: str, condition: Tensor) -> None:
    """It multiplies the noise x starts from; nothing else is drawn, and at 0 keys make no difference."""
    sampler = random_head(solver=name).sampler(SamplerSettings())
    initial = keys(5).normal((CHANNELS,))
    steps = list(sampler.reverse_process(condition, initial=initial, temperature=0.5))
    assert all(step.log_variance is None and torch.equal(step.sample, step.mean) for step in steps)
    scaled = list(sampler.reverse_process(condition, initial=0.5 * initial))
    assert torch.equal(steps[-1].sample, scaled[-1].sample)
    half = sampler(condition, SamplingRequest(random=keys(5), temperature=0.5))
    assert torch.equal(half, steps[-1].sample)
    cold = [sampler(condition, SamplingRequest(random=keys(5, seed), temperature=0.0)) for seed in (0, 1)]
    assert torch.equal(*cold)
    assert not torch.allclose(cold[0], half)


@pytest.mark.parametrize("name", SOLVERS)
def test_guidance_scale_one_is_no_guidance(name: str, condition: Tensor) -> None:
    """With every solver, rescaled or not."""
    request = {"random": keys(5)}
    plain = random_head(solver=name).sampler(SamplerSettings())(condition, SamplingRequest(**request))
    guidance = Guidance(negative=torch.zeros_like(condition), scale=torch.ones(5))
    for rescale in (0.0, 0.7):
        sampler = random_head(solver=name, guidance_rescale=rescale).sampler(SamplerSettings())
        guided = sampler(condition, SamplingRequest(random=keys(5), guidance=guidance))
        torch.testing.assert_close(guided, plain, rtol=1e-3, atol=1e-4)


def test_rescaled_noise_has_the_conditional_spread() -> None:
    """At 1 exactly, at 0 not at all, in between the mixture; a prediction without spread stays as it is."""
    generator = torch.Generator().manual_seed(1)
    conditional, negative = (torch.randn(6, 16, generator=generator) for _ in range(2))
    guided = guided_noise(conditional, negative, torch.linspace(0.0, 9.0, 6))
    full = rescaled_noise(guided, conditional, 1.0)
    torch.testing.assert_close(full.std(dim=1), conditional.std(dim=1))
    torch.testing.assert_close(full / full.norm(dim=1, keepdim=True), guided / guided.norm(dim=1, keepdim=True))
    assert torch.equal(rescaled_noise(guided, conditional, 0.0), guided)
    torch.testing.assert_close(rescaled_noise(guided, conditional, 0.3), 0.3 * full + 0.7 * guided)
    zero = torch.zeros(2, 4)
    assert torch.equal(rescaled_noise(zero, zero, 1.0), zero)


@pytest.mark.parametrize("linear_skip", [False, True])
def test_guidance_rescale_acts_on_the_whole_noise(linear_skip: bool, condition: Tensor) -> None:
    """The noise behind the first step's clean token has the conditional spread, the linear guess included."""
    initial = keys(5).normal((CHANNELS,))
    guidance = Guidance(negative=torch.zeros_like(condition), scale=torch.full((5,), 4.0))

    def spread(rescale: float, given: Guidance | None) -> Tensor:
        head = random_head(linear_skip=linear_skip, guidance_rescale=rescale, token_limit=None, solver="ddim")
        step = next(iter(head.sampler(SamplerSettings()).reverse_process(condition, initial=initial, guidance=given)))
        level = NoiseSchedule.cosine().alphas_cumprod[980].float()
        return ((initial - level.sqrt() * step.predicted_clean) / (1.0 - level).sqrt()).std(dim=1)

    torch.testing.assert_close(spread(1.0, guidance), spread(0.0, None), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(spread(0.0, guidance), spread(0.0, None), rtol=0.05)


def test_guidance_rescale_needs_two_channels(condition: Tensor) -> None:
    """One channel has no spread: refused when sampling is prepared, and no matter without rescaling."""
    with pytest.raises(InvalidRequestError, match="two channels or more"):
        random_head(channels=1, guidance_rescale=0.5).sampler(SamplerSettings())
    sample = random_head(channels=1).sampler(SamplerSettings())(condition, SamplingRequest(random=keys(5)))
    assert sample.shape == (5, 1)


def test_step_budget_falls_linearly() -> None:
    """From the first number to the last, never outside them; None is constant."""
    counts = [num_steps_at(k / 256, num_steps=50, final_num_steps=5) for k in range(257)]
    assert (counts[0], counts[128], counts[-1]) == (50, 28, 5)
    assert counts == sorted(counts, reverse=True)
    assert set(counts) == set(range(5, 51))
    assert num_steps_at(0.9, num_steps=50, final_num_steps=None) == 50
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(InvalidRequestError, match="progress from 0 to 1"):
            num_steps_at(wrong, num_steps=50, final_num_steps=5)


@pytest.mark.parametrize("name", SOLVERS)
def test_step_budget_when_sampling(name: str, condition: Tensor) -> None:
    """A token at some progress is the one that a sampler with that number of steps draws."""
    head = random_head(solver=name, num_sampling_steps=20, final_num_sampling_steps=4)
    evaluations: list[int] = []
    head.network.register_forward_hook(lambda *_: evaluations.append(1))
    sampler = head.sampler(SamplerSettings(backend="reference"))
    assert sampler.num_steps == 20
    for progress, expected in ((0.0, 20), (0.5, 12), (1.0, 4), (0.5, 12)):
        evaluations.clear()
        sample = sampler(condition, SamplingRequest(random=keys(5), progress=progress))
        assert len(evaluations) == expected
        constant = random_head(solver=name).sampler(SamplerSettings(num_steps=expected, backend="reference"))
        assert torch.equal(sample, constant(condition, SamplingRequest(random=keys(5), progress=progress)))


def test_timesteps_are_embedded_once_for_each_number_of_steps(condition: Tensor) -> None:
    """The fused sampler keeps what depends on the timesteps alone, also when a step budget asks for several lists."""
    head = random_head(num_sampling_steps=20, final_num_sampling_steps=4)
    embeddings: list[int] = []
    head.network.time_embedding.register_forward_hook(lambda *_: embeddings.append(1))
    sampler = head.sampler(SamplerSettings(backend="fused"))
    for progress in (0.0, 0.5, 1.0, 0.5):
        sampler(condition, SamplingRequest(random=keys(5), progress=progress))
    assert len(embeddings) == 3


def test_options_are_replaced_for_one_generation(condition: Tensor) -> None:
    """Every sampling option; the head keeps its own, and a head built with the option draws the same.

    The option for CUDA graphs is taken and changes nothing on a CPU.
    """
    head = random_head()
    assert isinstance(head, AdjustableSampling)
    guidance = Guidance(negative=torch.zeros_like(condition), scale=torch.full((5,), 3.0))

    def draw(a_head: DiffusionHead, settings: SamplerSettings) -> Tensor:
        request = SamplingRequest(random=keys(5), guidance=guidance, progress=1.0)
        return a_head.sampler(settings)(condition, request)

    plain = draw(head, SamplerSettings())
    replaced = {
        "solver": "dpm++",
        "spacing": "even",
        "num_sampling_steps": 9,
        "final_num_sampling_steps": 3,
        "first_timestep": 900,
        "token_limit": 0.5,
        "guidance_rescale": 1.0,
    }
    assert replaced.keys() | {"cuda_graph"} == head.sampling_options
    for name, value in replaced.items():
        found = draw(head, SamplerSettings(options={name: value}))
        assert not torch.allclose(found, plain), name
        assert torch.equal(found, draw(random_head(**{name: value}), SamplerSettings())), name
    assert torch.equal(draw(head, SamplerSettings()), plain)
    assert torch.equal(draw(head, SamplerSettings(options={"cuda_graph": True})), plain)


def test_num_steps_wins_over_the_option(condition: Tensor) -> None:
    """It is the same quantity, checked together with the others."""
    head = random_head(num_sampling_steps=100)
    settings = SamplerSettings(num_steps=7, options={"num_sampling_steps": 9, "first_timestep": 20})
    assert head.sampler(settings).num_steps == 7
    budget = random_head(num_sampling_steps=50, final_num_sampling_steps=10)
    with pytest.raises(InvalidRequestError, match=r"final_num_sampling_steps' must be at most .* 5, .* found 10"):
        budget.sampler(SamplerSettings(num_steps=5))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "dpm+"}, r"one of ddpm, ddim, dpm\+\+, found 'dpm\+'\. Did you mean 'dpm\+\+'"),
        ({"solver": 3}, "one of ddpm, ddim"),
        ({"solvr": "ddim"}, "'solvr' can not be changed when sampling. Did you mean 'solver'"),
        ({"width": 32}, "'width' can not be changed"),
        ({"num_sampling_steps": 0}, "'num_sampling_steps' must be a whole number at least 1, found 0"),
        ({"num_sampling_steps": 982}, "'num_sampling_steps' must be from 1 to 981"),
        ({"num_sampling_steps": 2.5}, "'num_sampling_steps' must be a whole number"),
        ({"final_num_sampling_steps": 13}, "'final_num_sampling_steps' must be at most num_sampling_steps, 12"),
        ({"final_num_sampling_steps": 0}, "'final_num_sampling_steps' must be a whole number at least 1"),
        ({"first_timestep": 5}, "'num_sampling_steps' must be from 1 to 6, since first_timestep is 5, found 12"),
        ({"first_timestep": "9"}, "'first_timestep' must be a whole number"),
        ({"token_limit": -1.0}, "'token_limit' must be a finite number above 0"),
        ({"guidance_rescale": 1.5}, "'guidance_rescale' must be a finite number at least 0 and at most 1"),
        ({"guidance_rescale": math.nan}, "'guidance_rescale' must be"),
    ],
)
def test_wrong_overrides_are_refused(options: dict[str, object], message: str) -> None:
    """Unknown names, options that are part of the network, and values that do not fit, alone or together."""
    with pytest.raises(InvalidRequestError, match=message):
        random_head().sampler(SamplerSettings(options=options))


@pytest.mark.parametrize("name", SOLVERS)
def test_what_can_not_be_sampled_is_refused(name: str, condition: Tensor) -> None:
    """Temperatures, random sources, guidance of another shape, and rows that are not finite, counted."""
    sampler = random_head(solver=name).sampler(SamplerSettings())
    for temperature in (-1.0, math.nan, math.inf):
        with pytest.raises(InvalidRequestError, match="temperature of 0 or more"):
            sampler(condition, SamplingRequest(random=keys(5), temperature=temperature))
    with pytest.raises(InvalidRequestError, match="guidance with negative vectors"):
        sampler(
            condition, SamplingRequest(random=keys(5), guidance=Guidance(negative=condition[:3], scale=torch.ones(5)))
        )
    broken = condition.clone()
    broken[1, 3], broken[4, 0] = math.nan, math.inf
    with pytest.raises(InvalidRequestError, match="finite hidden vectors, found 2 of 5 rows"):
        sampler(broken, SamplingRequest(random=keys(5)))
    with pytest.raises(InvalidRequestError, match="without the text, found 2 of 5 rows"):
        sampler(condition, SamplingRequest(random=keys(5), guidance=Guidance(negative=broken, scale=torch.ones(5))))
    scale = torch.tensor([1.0, 2.0, math.nan, 1.0, 1.0])
    with pytest.raises(InvalidRequestError, match="guidance scales, found 1 of 5"):
        sampler(condition, SamplingRequest(random=keys(5), guidance=Guidance(negative=condition, scale=scale)))


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_backends_agree(backend: str, condition: Tensor) -> None:
    """What is asked for runs, says so, and draws the reference's tokens with every solver."""
    for name in SOLVERS:
        head = random_head(solver=name, guidance_rescale=0.3)
        guidance = Guidance(negative=torch.zeros_like(condition), scale=torch.linspace(1.0, 3.0, 5))

        def draw(settings: SamplerSettings, head: DiffusionHead = head, guidance: Guidance = guidance) -> Tensor:
            return head.sampler(settings)(condition, SamplingRequest(random=keys(5), guidance=guidance))

        sampler = head.sampler(SamplerSettings(backend=backend))
        assert isinstance(sampler, DiffusionSampler)
        assert isinstance(sampler, ReportsBackend)
        assert sampler.backend == backend
        expected = draw(SamplerSettings(backend="reference"))
        torch.testing.assert_close(draw(SamplerSettings(backend=backend)), expected, rtol=1e-4, atol=1e-4)


def test_options_of_a_built_head_are_checked() -> None:
    """The same refusals when a head is built, as `ValueError`."""
    with pytest.raises(ValueError, match="final_num_sampling_steps"):
        DiffusionOptions(num_sampling_steps=10, final_num_sampling_steps=11)
    with pytest.raises(ValueError, match="'solver' must be one of"):
        attrs.evolve(DiffusionOptions(), solver="euler")
    assert DiffusionOptions(num_sampling_steps=10, final_num_sampling_steps=10).final_num_sampling_steps == 10
