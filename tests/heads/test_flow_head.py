"""The flow-matching head: loss, solvers, sampling, and its behaviour on odd input."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from fluid_core.errors import IncompatibleComponentsError, InvalidRequestError, InvalidTokensError
from fluid_core.exchange import Guidance, HeadContext, SamplerSettings, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_core.protocols import AdjustableSampling, ReportsBackend
from fluid_core.token_space import ContinuousTokens, DiscreteTokens, Grid
from fluid_heads import FlowHead, FlowOptions
from fluid_heads.flow.rectified_flow import logit_normal_times, time_grid
from fluid_heads.flow.solvers import integrate, num_evaluations
from fluid_heads.plugin import fluid_register_heads

CHANNELS, WIDTH = 3, 8
SPACE = ContinuousTokens(grid=Grid(height=2, width=2), channels=CHANNELS)
PREDICTIONS = ["velocity", "clean"]


def generator(seed: int = 0) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


def keys(count: int, seed: int = 0) -> KeyedRandom:
    """A random source with one row per token."""
    return KeyedRandom.from_generator(generator(seed), count)


def random_head(**options: Any) -> FlowHead:
    """A small head whose zero-initialised layers have values too, so that everything has an effect."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        head = FlowHead(SPACE, WIDTH, FlowOptions(**{"width": 16, "depth": 2, "num_sampling_steps": 6, **options}))
        for parameter in head.parameters():
            nn.init.normal_(parameter, std=0.2)
    return head


def output_at(head: FlowHead, x: Tensor, time: Tensor, condition: Tensor) -> Tensor:
    """The network's output for tokens x, each at a time of its own, in one plain call."""
    with torch.no_grad():
        return head.network(x, head.network.embed_timesteps(1000.0 * time) + head.network.project_condition(condition))


@pytest.fixture
def condition() -> Tensor:
    """Hidden vectors of five tokens."""
    return torch.randn(5, WIDTH, generator=generator(2))


@pytest.fixture
def target() -> Tensor:
    """Five tokens."""
    return torch.randn(5, CHANNELS, generator=generator(4))


def test_defaults() -> None:
    """Six blocks of the backbone's width, one output per channel, 50 Euler steps."""
    context = HeadContext(token_space=SPACE, width=WIDTH, token_embedding=SPACE.embedding(WIDTH))
    component = next(c for c in fluid_register_heads() if c.name == "flow")
    assert component.predicts == "continuous"
    head = component.build(component.options(), context)
    assert len(head.network.blocks) == 6
    assert head.network.input_projection.out_features == WIDTH
    assert head.network.output_projection.out_features == CHANNELS
    sampler = head.sampler(SamplerSettings())
    assert (sampler.num_steps, sampler.num_evaluations) == (50, 50)
    assert set(head.state_dict()) == {name for name, _ in head.named_parameters()}


# -- loss


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_loss_by_hand(prediction: str, condition: Tensor, target: Tensor) -> None:
    """The squared error of the velocity, computed draw by draw from the equations."""
    head = random_head(prediction=prediction, token_scale=0.5)
    times = torch.rand(5, 4, generator=generator(1))
    times[0] = torch.tensor([0.0, 1.0, 0.01, 0.05])
    noise = torch.randn(5, 4, CHANNELS, generator=generator(6))
    expected = torch.zeros(5)
    for draw in range(4):
        time = times[:, draw]
        clean = 0.5 * target
        x = (1 - time[:, None]) * clean + time[:, None] * noise[:, draw]
        output = output_at(head, x, time, condition)
        if prediction == "velocity":
            error = output - (noise[:, draw] - clean)
        else:
            divisor = time.clamp(min=0.05)[:, None]
            error = (x - output) / divisor - (x - clean) / divisor
        expected += error.square().mean(dim=1) / 4
    loss = head.loss_at(condition, target, times=times, noise=noise)
    torch.testing.assert_close(loss.total.detach(), expected, rtol=1e-4, atol=1e-5)
    assert set(loss.parts) == {"mse"}
    assert torch.equal(loss.parts["mse"], loss.total.detach())
    assert not loss.parts["mse"].requires_grad


def test_a_perfect_prediction_of_either_kind_has_no_loss(target: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Velocity noise - x0, or the token itself, at all times and at the ends of the way too."""
    times = torch.tensor([[0.0, 0.001, 0.5, 1.0]]).expand(5, -1)
    noise = torch.randn(5, 4, CHANNELS, generator=generator(6))
    answers = {"velocity": noise - target[:, None], "clean": target[:, None].expand_as(noise)}
    for prediction, answer in answers.items():
        head = random_head(prediction=prediction)
        monkeypatch.setattr(head.network, "forward", lambda _x, _conditioning, answer=answer: answer)
        loss = head.loss_at(torch.zeros(5, WIDTH), target, times=times, noise=noise)
        assert torch.equal(loss.total, torch.zeros(5))


def test_draws_of_the_loss(condition: Tensor, target: Tensor) -> None:
    """Logit-normal times, then noise, one row per token; and the condition is projected once for all draws."""
    head = random_head(timesteps_per_token=3, time_mean=0.5, time_deviation=2.0)
    rows: list[int] = []
    head.network.condition_projection.register_forward_hook(lambda _m, args, _out: rows.append(len(args[0])))
    loss = head.loss(condition, target, random=keys(5)).total
    assert rows == [5]
    random = keys(5)
    times = torch.sigmoid(0.5 + 2.0 * random.normal((3,)))
    expected = head.loss_at(condition, target, times=times, noise=random.normal((3, CHANNELS))).total
    torch.testing.assert_close(loss, expected)
    chosen = torch.tensor([3])
    alone = head.loss(condition[chosen], target[chosen], random=keys(5).rows(chosen)).total
    torch.testing.assert_close(alone, loss[chosen])


def test_times_are_logit_normal() -> None:
    """Their logits have the mean and the deviation asked for, and extreme ones stay in [0, 1]."""
    times = logit_normal_times(keys(4000), 5, mean=-0.5, deviation=1.5)
    logits = torch.logit(times.double())
    assert float(logits.mean()) == pytest.approx(-0.5, abs=0.05)
    assert float(logits.std()) == pytest.approx(1.5, abs=0.05)
    extreme = logit_normal_times(keys(100), 5, mean=0.0, deviation=200.0)
    assert float(extreme.min()) >= 0.0
    assert float(extreme.max()) <= 1.0


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_gradients_are_finite_and_reach_everything(prediction: str, condition: Tensor, target: Tensor) -> None:
    """Also with times at both ends, where a clean token implies an unbounded velocity."""
    head = random_head(prediction=prediction)
    given = condition.clone().requires_grad_()
    times = torch.tensor([[0.0, 1e-6, 0.5, 1.0]]).expand(5, -1)
    noise = torch.randn(5, 4, CHANNELS, generator=generator(6))
    head.loss_at(given, target, times=times, noise=noise).total.sum().backward()
    for gradient in [given.grad, *(parameter.grad for parameter in head.parameters())]:
        assert gradient is not None
        assert bool(torch.isfinite(gradient).all())
        assert bool(gradient.any())


@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(5, CHANNELS + 1),
        torch.zeros(5),
        torch.zeros(5, CHANNELS, dtype=torch.int64),
        torch.full((5, CHANNELS), math.nan),
    ],
)
def test_wrong_targets_are_refused(condition: Tensor, wrong: Tensor) -> None:
    """Another number of channels, no channels, whole numbers, not a number."""
    with pytest.raises(InvalidTokensError):
        random_head().loss(condition, wrong, random=keys(5))


def test_float32_under_autocast(condition: Tensor, target: Tensor) -> None:
    """Autocast of the backbone changes neither losses nor samples of either backend, and bf16 conditions are taken."""
    head = random_head()
    plain = head.loss(condition, target, random=keys(5)).total
    for backend in ("reference", "fused"):
        sampler = head.sampler(SamplerSettings(backend=backend))
        sample = sampler(condition, SamplingRequest(random=keys(5)))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(sampler(condition, SamplingRequest(random=keys(5))), sample)
            half = sampler(condition.bfloat16(), SamplingRequest(random=keys(5)))
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, sample, rtol=0.1, atol=0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head.loss(condition, target, random=keys(5)).total, plain)
        assert head.loss(condition.bfloat16(), target, random=keys(5)).total.dtype == torch.float32


# -- solvers


def test_time_grid() -> None:
    """Evenly spaced from 1 to 0, bent towards noise by a shift above 1; impossible numbers of steps are refused."""
    assert time_grid(4) == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert time_grid(2, shift=3.0) == [1.0, 0.75, 0.0]
    assert time_grid(1) == [1.0, 0.0]
    assert len(time_grid(1000)) == 1001
    for num_steps in (0, -1, 1001):
        with pytest.raises(InvalidRequestError, match=f"1 to 1000 sampling steps, found {num_steps}"):
            time_grid(num_steps)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence(solver: str, order: int) -> None:
    """Halving the steps divides the error by 2 with Euler and by 4 with Heun: dx/dt = x cos(4t), solved exactly."""
    exact = math.exp((math.sin(4.0 * 0.1) - math.sin(4.0)) / 4.0)

    def error(num_steps: int) -> float:
        # Up to t = 0.1; one more time, since the last step is Euler's with either solver, and with velocity zero there.
        times = [1.0 - 0.9 * step / num_steps for step in range(num_steps + 1)]

        def velocity(step: int, x: Tensor) -> Tensor:
            return x * math.cos(4.0 * times[step])

        start = torch.ones(1, 1, dtype=torch.float64)
        return abs(float(integrate(velocity, [*times, times[-1]], start, solver=solver)) - exact)

    assert error(64) / error(128) == pytest.approx(2.0**order, rel=0.1)


@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("num_steps", [1, 2, 3, 30])
def test_any_number_of_steps(num_steps: int, solver: str, condition: Tensor) -> None:
    """From a single step: finite tokens, and exactly as many evaluations as are reported."""
    head = random_head(solver=solver)
    calls = []
    head.network.register_forward_hook(lambda *_: calls.append(1))
    sampler = head.sampler(SamplerSettings(num_steps=num_steps, backend="reference"))
    assert bool(torch.isfinite(sampler(condition[:1], SamplingRequest(random=keys(1)))).all())
    assert sampler.num_steps == num_steps
    assert len(calls) == sampler.num_evaluations == num_evaluations(num_steps, solver)
    assert sampler.num_evaluations == (num_steps if solver == "euler" else 2 * num_steps - 1)


# -- sampling


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(("shift", "middle"), [(3.0, 0.75), (0.05, 0.025 / 0.525)])
def test_two_euler_steps_by_hand(prediction: str, shift: float, middle: float, condition: Tensor) -> None:
    """From t = 1 to the middle to 0, with guidance, token scale and temperature; the second middle is below 0.05, the
    least divisor of a predicted clean token.
    """
    head = random_head(prediction=prediction, shift=shift, token_scale=0.5)
    negative = torch.randn(5, WIDTH, generator=generator(9))
    scale = torch.tensor([0.0, 1.0, 2.0, 3.0, 7.5])
    x = 0.7 * keys(5).normal((CHANNELS,))
    for time, end in ((1.0, middle), (middle, 0.0)):
        at = torch.full((5,), time)
        outputs = [output_at(head, x, at, vectors) for vectors in (condition, negative)]
        own, other = outputs if prediction == "velocity" else [(x - output) / max(time, 0.05) for output in outputs]
        x = x + (end - time) * (other + scale[:, None] * (own - other))
    request = SamplingRequest(random=keys(5), temperature=0.7, guidance=Guidance(negative=negative, scale=scale))
    sampler = head.sampler(SamplerSettings(num_steps=2, backend="reference"))
    torch.testing.assert_close(sampler(condition, request), x / 0.5, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("solver", ["euler", "heun"])
@pytest.mark.parametrize("guided", [False, True])
def test_fused_equals_reference(prediction: str, solver: str, guided: bool) -> None:
    """The same tokens from the same noise after 100 steps, and each sampler says which one it is."""
    head = random_head(prediction=prediction, solver=solver)
    condition = torch.randn(37, WIDTH, generator=generator(2))
    negative = torch.randn(37, WIDTH, generator=generator(9))
    guidance = Guidance(negative=negative, scale=torch.full((37,), 3.0)) if guided else None
    drawn = {}
    for backend in ("reference", "fused"):
        sampler = head.sampler(SamplerSettings(num_steps=100, backend=backend))
        assert isinstance(sampler, ReportsBackend)
        assert sampler.backend == backend
        drawn[backend] = sampler(condition, SamplingRequest(random=keys(37), guidance=guidance))
    torch.testing.assert_close(drawn["fused"], drawn["reference"], rtol=1e-4, atol=1e-4)


def test_sampling_repeats_and_rows_are_independent(condition: Tensor) -> None:
    """The same keys give the same token, alone or in a batch; other keys give another."""
    sampler = random_head().sampler(SamplerSettings())
    random = keys(5)
    together = sampler(condition, SamplingRequest(random=random))
    assert torch.equal(sampler(condition, SamplingRequest(random=keys(5))), together)
    chosen = torch.tensor([4, 0])
    alone = sampler(condition[chosen], SamplingRequest(random=random.rows(chosen)))
    torch.testing.assert_close(alone, together[chosen], rtol=1e-4, atol=1e-5)
    other = sampler(condition, SamplingRequest(random=keys(5, seed=8)))
    assert bool(((other - together).abs().amax(dim=1) > 1e-3).all())


def test_temperature_zero_is_one_token_per_condition(condition: Tensor) -> None:
    """Whatever the keys; and at the temperatures above it the keys matter."""
    sampler = random_head().sampler(SamplerSettings())

    def draw(temperature: float, seed: int) -> Tensor:
        return sampler(condition, SamplingRequest(random=keys(5, seed=seed), temperature=temperature))

    assert torch.equal(draw(0.0, 1), draw(0.0, 2))
    assert bool(torch.isfinite(draw(0.0, 1)).all())
    assert not torch.equal(draw(0.0, 1)[0], draw(0.0, 1)[1])
    distances = [float((draw(temperature, 1) - draw(temperature, 2)).norm()) for temperature in (0.25, 0.5, 1.0)]
    assert distances == sorted(distances)
    assert distances[0] > 0.0


def test_guidance_scale_one_is_no_guidance(condition: Tensor) -> None:
    """Scale 1 gives the unguided samples, 0 those of the negative vectors, 3 something else."""
    sampler = random_head().sampler(SamplerSettings())
    negative = torch.randn(5, WIDTH, generator=generator(9))

    def draw(vectors: Tensor, scale: float | None) -> Tensor:
        guidance = None if scale is None else Guidance(negative=negative, scale=torch.full((5,), scale))
        return sampler(vectors, SamplingRequest(random=keys(5), guidance=guidance))

    torch.testing.assert_close(draw(condition, 1.0), draw(condition, None), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(draw(condition, 0.0), draw(negative, None), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(draw(condition, 3.0), draw(condition, None), atol=1e-2)


def test_options_of_one_generation(condition: Tensor) -> None:
    """Solver and shift can be replaced, which is as building the head with them; others are refused."""
    head = random_head()
    assert isinstance(head, AdjustableSampling)
    assert head.sampling_options == {"solver", "shift"}
    replaced = head.sampler(SamplerSettings(options={"solver": "heun", "shift": 2.0}))
    built = random_head(solver="heun", shift=2.0).sampler(SamplerSettings())
    assert replaced.num_evaluations == built.num_evaluations == 11
    drawn = [sampler(condition, SamplingRequest(random=keys(5))) for sampler in (replaced, built)]
    assert torch.equal(*drawn)
    assert not torch.allclose(drawn[0], head.sampler(SamplerSettings())(condition, SamplingRequest(random=keys(5))))
    for options, message in (
        ({"token_scale": 2.0}, "'token_scale' can not be changed"),
        ({"solver": "rk4"}, "solver"),
        ({"shift": 0.0}, "shift"),
    ):
        with pytest.raises(InvalidRequestError, match=message):
            head.sampler(SamplerSettings(options=options))


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_zero_and_one_tokens(backend: str) -> None:
    """No tokens in, none out, with and without guidance; one works as many; so does the loss."""
    head = random_head()
    sampler = head.sampler(SamplerSettings(backend=backend))
    for count in (0, 1):
        vectors = torch.ones(count, WIDTH)
        for guidance in (None, Guidance(negative=torch.zeros(count, WIDTH), scale=torch.full((count,), 2.0))):
            sample = sampler(vectors, SamplingRequest(random=keys(count), guidance=guidance))
            assert sample.shape == (count, CHANNELS)
            assert sample.dtype == torch.float32
            assert bool(torch.isfinite(sample).all())
        assert head.loss(vectors, torch.zeros(count, CHANNELS), random=keys(count)).total.shape == (count,)


def test_requests_without_meaning_are_refused(condition: Tensor) -> None:
    """Steps outside the range, temperatures and shapes that do not fit."""
    head = random_head()
    for num_steps in (0, -3, 1001):
        with pytest.raises(InvalidRequestError, match=f"1 to 1000 sampling steps, found {num_steps}"):
            head.sampler(SamplerSettings(num_steps=num_steps))
    sampler = head.sampler(SamplerSettings())
    for temperature in (-0.5, math.nan, math.inf):
        with pytest.raises(InvalidRequestError, match=f"temperature of 0 or more, found {temperature}"):
            sampler(condition, SamplingRequest(random=keys(5), temperature=temperature))
    with pytest.raises(InvalidRequestError, match="4 rows for 5 tokens"):
        sampler(condition, SamplingRequest(random=keys(4)))
    broken = condition.clone()
    broken[2, 1] = math.nan
    with pytest.raises(InvalidRequestError, match="finite hidden vectors, found 1 of 5 rows"):
        sampler(broken, SamplingRequest(random=keys(5)))
    with pytest.raises(InvalidRequestError, match=f"width {WIDTH}, found {WIDTH + 1}"):
        sampler(torch.zeros(5, WIDTH + 1), SamplingRequest(random=keys(5)))
    guidance = Guidance(negative=condition[:2], scale=torch.ones(2))
    with pytest.raises(InvalidRequestError, match="guidance with negative vectors"):
        sampler(condition, SamplingRequest(random=keys(5), guidance=guidance))


@pytest.mark.parametrize(
    "options",
    [
        {"width": 0},
        {"depth": 0},
        {"prediction": "noise"},
        {"timesteps_per_token": 0},
        {"time_mean": math.nan},
        {"time_deviation": 0.0},
        {"token_scale": 0.0},
        {"num_sampling_steps": 0},
        {"num_sampling_steps": 1001},
        {"solver": "midpoint"},
        {"shift": 0},
        {"shift": math.inf},
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    """Each names the option."""
    with pytest.raises(ValueError, match=next(iter(options))):
        FlowOptions(**options)


def test_discrete_tokens_are_refused() -> None:
    """Building through the plugin for ids is refused in one sentence."""
    space = DiscreteTokens(grid=Grid(height=2, width=2), vocabulary_size=7)
    context = HeadContext(token_space=space, width=WIDTH, token_embedding=space.embedding(WIDTH))
    component = next(c for c in fluid_register_heads() if c.name == "flow")
    with pytest.raises(IncompatibleComponentsError, match="predicts continuous tokens, found discrete"):
        component.build(FlowOptions(), context)


# -- the head as a module


def test_saved_weights_give_the_same_samples(condition: Tensor, tmp_path: Path) -> None:
    """Written and read as safetensors, into a head that was laid out on the meta device."""
    head = random_head()
    save_file(head.state_dict(), tmp_path / "head.safetensors")
    with torch.device("meta"):
        other = FlowHead(SPACE, WIDTH, head.options)
    other.load_state_dict(load_file(tmp_path / "head.safetensors"), assign=True)
    drawn = [one.sampler(SamplerSettings())(condition, SamplingRequest(random=keys(5))) for one in (head, other)]
    assert torch.equal(*drawn)


def test_meta_device_reset_and_copy(condition: Tensor, target: Tensor) -> None:
    """`reset_parameters` makes a laid-out head usable; a deep copy is independent, as for a moving average."""
    with torch.device("meta"):
        head = FlowHead(SPACE, WIDTH, FlowOptions(width=16, depth=2, num_sampling_steps=4))
    head.to_empty(device="cpu").reset_parameters()
    # A fresh network predicts zero: the loss is the square of the velocity, and noise stays where it is.
    random = keys(5)
    random.normal((4,))
    velocity = random.normal((4, CHANNELS)) - target[:, None]
    loss = head.loss(condition, target, random=keys(5)).total
    torch.testing.assert_close(loss, velocity.square().mean(dim=(1, 2)))
    drawn = head.sampler(SamplerSettings())(condition, SamplingRequest(random=keys(5)))
    torch.testing.assert_close(drawn, keys(5).normal((CHANNELS,)))
    duplicate = copy.deepcopy(head)
    nn.init.ones_(duplicate.network.output_projection.bias)
    assert torch.equal(head.loss(condition, target, random=keys(5)).total, loss)
    assert not torch.equal(duplicate.loss(condition, target, random=keys(5)).total, loss)


# -- what it learns

CENTRES = torch.tensor([[1.5, -0.5, 0.5], [-1.0, 0.5, -1.0]])
DEVIATION = 0.25
SHARES = torch.tensor([0.8, 0.3])
"""Share of the first cluster in either of two cases."""


def clusters(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Conditions that say which of two cases it is, and tokens from two clusters whose weights the case decides."""
    source = generator(seed)
    case = torch.randint(2, (count,), generator=source)
    first = torch.rand(count, generator=source) < SHARES[case]
    tokens = torch.where(first[:, None], CENTRES[0], CENTRES[1])
    tokens = tokens + DEVIATION * torch.randn(count, CHANNELS, generator=source)
    return functional.one_hot(case, WIDTH).float(), tokens


def trained_on_clusters(prediction: str) -> FlowHead:
    """A tiny head after 250 steps of Adam."""
    num_steps = 250
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        head = FlowHead(SPACE, WIDTH, FlowOptions(width=48, depth=2, prediction=prediction))
    optimizer = torch.optim.Adam(head.parameters(), lr=4e-3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / num_steps)
    for step in range(num_steps):
        condition, tokens = clusters(128, seed=step)
        optimizer.zero_grad()
        head.loss(condition, tokens, random=keys(128, seed=step)).total.mean().backward()
        optimizer.step()
        scheduler.step()
    return head


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_learns_two_clusters_and_their_weights(prediction: str) -> None:
    """Samples have the clusters' weights in each case, their means and their widths, with either solver and also where
    steps are so short that a predicted clean token is divided by the limit.
    """
    head = trained_on_clusters(prediction)
    num_tokens = 800
    condition = functional.one_hot(torch.arange(2).repeat_interleave(num_tokens), WIDTH).float()
    for solver, num_steps in (("euler", 25), ("heun", 13), ("euler", 100)):
        sampler = head.sampler(SamplerSettings(num_steps=num_steps, options={"solver": solver}))
        both = sampler(condition, SamplingRequest(random=keys(2 * num_tokens, seed=5)))
        for drawn, share in zip(both.split(num_tokens), SHARES, strict=True):
            first = (drawn - CENTRES[0]).norm(dim=1) < (drawn - CENTRES[1]).norm(dim=1)
            assert float(first.float().mean()) == pytest.approx(float(share), abs=0.08)
            for centre, members in ((CENTRES[0], drawn[first]), (CENTRES[1], drawn[~first])):
                torch.testing.assert_close(members.mean(dim=0), centre, rtol=0.0, atol=0.12)
                assert float(members.std(dim=0).mean()) == pytest.approx(DEVIATION, abs=0.07)
