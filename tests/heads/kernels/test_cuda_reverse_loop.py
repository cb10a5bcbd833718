"""The whole reverse process with kernels, against the reference sampler on the same random numbers."""

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import Guidance, SamplerBackend, SamplerSettings, SamplingRequest
from fluid_core.token_space import ContinuousTokens, Grid
from fluid_heads.denoising.network import DenoisingNetwork
from fluid_heads.diffusion.head import DiffusionHead
from fluid_heads.diffusion.noise_schedule import NoiseSchedule, evenly_spaced_timesteps, spaced_timesteps
from fluid_heads.diffusion.options import DiffusionOptions
from fluid_heads.flow.head import FlowHead
from fluid_heads.flow.options import FlowOptions
from fluid_heads.kernels import launching
from fluid_heads.kernels.cuda_denoiser import CudaNetwork
from fluid_heads.kernels.cuda_reverse_loop import CudaReverseLoop, padded_tokens
from fluid_heads.kernels.launching import kernel_is_running
from fluid_heads.kernels.noise_streams import NoiseStreams

CHANNELS, CONDITION_WIDTH = 5, 12
READS_BACK = ("_local_scalar_dense", "is_nonzero", "nonzero", "equal", "masked_select", "unique", "_assert_async")


class NothingIsReadBack(TorchDispatchMode):
    """Refuses every operator that waits for values: scalars, shapes that depend on values, copies to the host."""

    def __init__(self, device_type):
        super().__init__()
        self.device_type = device_type
        self.num_operators = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if not kernel_is_running():
            self.num_operators += 1
            assert name not in READS_BACK, f"{name} waits for the device"
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor) and any(
            isinstance(one, torch.Tensor) and one.device.type == self.device_type for one in args
        ):
            assert result.device.type == self.device_type, f"{name} copies to the host"
        return result


def make_head(**options):
    """A small head with values everywhere; its network is as wide as no power of two."""
    space = ContinuousTokens(grid=Grid(height=2, width=2), channels=CHANNELS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        head = DiffusionHead(space, CONDITION_WIDTH, DiffusionOptions(width=24, depth=2, **options))
        for parameter in head.parameters():
            nn.init.normal_(parameter, std=0.15)
    return head.requires_grad_(False)


def make_loop(head, num_steps, **settings):
    """The loop of kernels for a head."""
    options = head.options
    timesteps = spaced_timesteps(options.spacing, num_steps, first_timestep=options.first_timestep)
    return CudaReverseLoop(
        CudaNetwork(head.network),
        schedule=NoiseSchedule.cosine(timesteps),
        condition_width=CONDITION_WIDTH,
        token_scale=options.token_scale,
        linear_skip=options.linear_skip,
        guidance_rescale=options.guidance_rescale,
        limit=None if options.token_limit is None else options.token_limit * options.token_scale,
        **settings,
    )


def reference(head, num_steps):
    """The head's own ancestral sampler in eager code."""
    options = {"solver": "ddpm"}
    return head.sampler(SamplerSettings(num_steps=num_steps, backend=SamplerBackend.REFERENCE, options=options))


@pytest.mark.parametrize(
    ("tokens", "num_steps", "options", "temperature", "guided"),
    [
        (1, 50, {}, 1.0, True),
        (2, 12, {"token_limit": None, "first_timestep": 900}, 1.0, True),
        (1, 12, {"linear_skip": True, "token_scale": 0.5}, 0.7, False),
        (3, 12, {"linear_skip": True, "token_scale": 0.5}, 0.0, True),
        (5, 5, {"linear_skip": True, "guidance_rescale": 0.7}, 1.0, True),
        (2, 1, {}, 1.0, False),
    ],
)
def test_samples_are_those_of_the_reference(generator, keys, guide, tokens, num_steps, options, temperature, guided):
    """The same tokens to 1e-4, after 50 steps too, and the same numbers are left for whoever draws next."""
    head = make_head(**options)
    condition = torch.randn(tokens, CONDITION_WIDTH, generator=generator)
    guidance = guide(condition) if guided else None
    expected_random, found_random = keys(tokens), keys(tokens)
    expected = reference(head, num_steps)(
        condition, SamplingRequest(random=expected_random, temperature=temperature, guidance=guidance)
    )
    loop = make_loop(head, num_steps)
    found = loop(condition, SamplingRequest(random=found_random, temperature=temperature, guidance=guidance))
    assert (loop.num_steps, loop.backend) == (num_steps, SamplerBackend.FUSED)
    assert float(expected.abs().max()) > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(found_random.uniform((2,)), expected_random.uniform((2,)))


def test_blocks_of_steps_change_nothing(generator, keys):
    """Modulations of one, of some or of all steps at a time: the same tokens."""
    head = make_head()
    condition = torch.randn(2, CONDITION_WIDTH, generator=generator)
    drawn = [
        make_loop(head, 7, modulation_bytes=limit)(condition, SamplingRequest(random=keys(2)))
        for limit in (1, 3 * 2 * (2 * 3 + 2) * 24 * 4, 2**20)
    ]
    torch.testing.assert_close(drawn[1], drawn[0], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(drawn[2], drawn[0], atol=1e-6, rtol=1e-6)


def test_half_precision_stays_close(generator, keys, guide):
    """With a bfloat16 network the first predictions stay within 3% of the reference's largest, as rounding does."""
    network = make_head().network.bfloat16()
    condition = torch.randn(3, CONDITION_WIDTH, generator=generator)
    x, guidance = torch.randn(3, CHANNELS, generator=generator), guide(condition)
    evaluation = CudaNetwork(network).along([100, 900]).begin(condition, guidance)
    for step, timestep in ((0, 100), (1, 900)):
        found = evaluation(step, x)
        exact = network.float()
        vectors = exact.embed_timesteps(torch.tensor([timestep])) + exact.project_condition(
            torch.cat([condition, guidance.negative])
        )
        expected, negative = exact(torch.cat([x, x]), vectors).chunk(2)
        network.bfloat16()
        assert found.output.dtype == torch.float32
        for one, other in ((found.output, expected), (found.negative, negative)):
            torch.testing.assert_close(one, other, atol=0.03 * float(other.abs().max()), rtol=0.0)


def test_steps_may_be_visited_in_any_order(generator, network):
    """The denoiser gives what the network gives at any of its timesteps, forwards and back."""
    condition, x = torch.randn(3, 12, generator=generator), torch.randn(3, 5, generator=generator)
    timesteps = [0, 250, 600, 980]
    denoiser = CudaNetwork(network).along(timesteps, modulation_bytes=2 * 3 * (3 * 3 + 2) * 24 * 4)
    evaluation = denoiser.begin(condition, None)
    assert evaluation.num_held == 2
    for step in (3, 0, 2, 2, 1):
        vectors = network.embed_timesteps(torch.tensor([timesteps[step]])) + network.project_condition(condition)
        prediction = evaluation(step, x)
        assert prediction.negative is None
        torch.testing.assert_close(prediction.output, network(x, vectors), atol=1e-4, rtol=1e-4)


def test_nothing_is_read_back(generator, keys, guide):
    """Between the first noise and the last step no operator waits for values, on real tensors in the interpreter."""
    head = make_head(linear_skip=True)
    condition = torch.randn(2, CONDITION_WIDTH, generator=generator)
    initial, guidance = torch.randn(2, CHANNELS, generator=generator), guide(condition)
    loop, noise = make_loop(head, 5), NoiseStreams.taken_from(keys(2), num_draws=1)
    with NothingIsReadBack("cpu") as watched:
        loop.reverse_process(condition, initial=initial, noise=noise, temperature=0.9, guidance=guidance)
    assert watched.num_operators > 50
    with pytest.raises(AssertionError, match="waits"), NothingIsReadBack("cpu"):
        condition.sum().item()


def test_nothing_is_copied_to_the_host(monkeypatch):
    """On tensors without values all launches get tensors of that device, and nothing can have left it."""
    launched = []

    def record(kernel, grid, *arguments, reads, writes, **constants):
        launched.append((kernel.__name__, grid))
        assert all(one.device.type == "meta" for one in arguments if isinstance(one, torch.Tensor))

    monkeypatch.setattr("fluid_heads.kernels.modulated_norm.launch", record)
    monkeypatch.setattr("fluid_heads.kernels.reverse_step.launch", record)
    schedule = NoiseSchedule.cosine(evenly_spaced_timesteps(4, first_timestep=980))
    with torch.device("meta"):
        network = DenoisingNetwork(channels=5, num_outputs=10, condition_width=12, width=24, depth=2)
        condition, initial, scale = torch.randn(3, 12), torch.randn(3, 5), torch.ones(3)
        noise = NoiseStreams(keys=torch.arange(3), first_draw=1)
    loop = CudaReverseLoop(CudaNetwork(network), schedule=schedule, condition_width=12)
    guidance = Guidance(negative=condition, scale=scale)
    with NothingIsReadBack("meta") as watched:
        x = loop.reverse_process(condition, initial=initial, noise=noise, guidance=guidance)
    assert x.device.type == "meta"
    assert watched.num_operators > 50
    with pytest.raises(NotImplementedError, match="no data"):
        condition.cpu()
    per_step = [name for name, _ in launched[:4]]
    assert per_step == ["modulated_norm_kernel"] * 3 + ["reverse_step_kernel"]
    assert launched == launched[:4] * 4


def test_every_launch_of_a_step_is_the_same(generator, keys):
    """Kernels, grids and memory touched do not depend on the step: what a CUDA graph needs."""
    head = make_head()
    launches = []
    with launching.listening(launches.append):
        make_loop(head, 6)(torch.randn(3, CONDITION_WIDTH, generator=generator), SamplingRequest(random=keys(3)))
    assert len(launches) == 6 * 4
    assert launches == launches[:4] * 6


def test_no_tokens_give_no_tokens(keys):
    """An empty request is answered without a launch."""
    loop = make_loop(make_head(), 5)
    launches = []
    with launching.listening(launches.append):
        drawn = loop(torch.zeros(0, CONDITION_WIDTH), SamplingRequest(random=keys(0)))
    assert drawn.shape == (0, CHANNELS)
    assert launches == []


def test_what_does_not_fit_is_refused(keys):
    """Requests are checked as the reference checks them, and graphs are for CUDA devices."""
    head = make_head()
    loop = make_loop(head, 5)
    with pytest.raises(InvalidRequestError, match="width"):
        loop(torch.zeros(2, 3), SamplingRequest(random=keys(2)))
    with pytest.raises(InvalidRequestError, match="temperature"):
        loop(torch.zeros(2, CONDITION_WIDTH), SamplingRequest(random=keys(2), temperature=-1.0))
    with pytest.raises(InvalidRequestError, match="CUDA graph"):
        make_loop(head, 5, capture=True)


def test_graphs_are_few():
    """Numbers of tokens are rounded up to a few sizes that waste little."""
    assert [padded_tokens(number) for number in (1, 2, 3, 5, 33, 64, 65, 128, 200)] == [
        *(1, 2, 4, 8, 64, 64, 128, 128, 256)
    ]


@pytest.mark.parametrize("solver", ["ddpm", "ddim", "dpm++"])
def test_the_head_takes_the_kernels_where_they_run(solver, keys, generator, guide, monkeypatch):
    """Where the kernels serve a device, the fused sampler of any solver is made of them and draws the same tokens."""
    monkeypatch.setattr("fluid_heads.denoising.selection.uses_kernels", lambda _device: True)
    head = make_head(solver=solver, num_sampling_steps=8)
    condition = torch.randn(3, CONDITION_WIDTH, generator=generator)
    guidance = guide(condition)
    tokens = {}
    for backend in ("reference", "fused"):
        sampler = head.sampler(SamplerSettings(backend=backend))
        assert sampler.backend is SamplerBackend(backend)
        tokens[backend] = sampler(condition, SamplingRequest(random=keys(3), guidance=guidance))
    torch.testing.assert_close(tokens["fused"], tokens["reference"], atol=1e-4, rtol=1e-4)


def test_tokens_too_wide_for_the_kernels_take_the_reference(monkeypatch):
    """`auto` falls back; `fused` says what there is no fused denoiser for."""
    monkeypatch.setattr("fluid_heads.denoising.selection.uses_kernels", lambda _device: True)
    space = ContinuousTokens(grid=Grid(height=2, width=2), channels=1025)
    head = DiffusionHead(space, CONDITION_WIDTH, DiffusionOptions(width=24, depth=1))
    monkeypatch.setattr(torch.nn.Parameter, "device", torch.device("cuda"), raising=False)
    assert head.sampler(SamplerSettings()).backend is SamplerBackend.REFERENCE
    with pytest.raises(InvalidRequestError, match=r"tokens of 1025 channels and layers of width 24\. Use"):
        head.sampler(SamplerSettings(backend="fused"))


def test_a_flow_head_takes_the_kernels_where_they_run(keys, generator, guide, monkeypatch):
    """Both solvers of a flow head follow the velocity that the kernels compute."""
    monkeypatch.setattr("fluid_heads.denoising.selection.uses_kernels", lambda _device: True)
    space = ContinuousTokens(grid=Grid(height=2, width=2), channels=CHANNELS)
    head = FlowHead(space, CONDITION_WIDTH, FlowOptions(width=24, depth=2))
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.15)
    condition = torch.randn(3, CONDITION_WIDTH, generator=generator)
    guidance = guide(condition)
    for solver in ("euler", "heun"):
        tokens = {}
        for backend in ("reference", "fused"):
            sampler = head.sampler(SamplerSettings(num_steps=5, backend=backend, options={"solver": solver}))
            assert sampler.backend is SamplerBackend(backend)
            tokens[backend] = sampler(condition, SamplingRequest(random=keys(3), guidance=guidance))
        torch.testing.assert_close(tokens["fused"], tokens["reference"], atol=1e-4, rtol=1e-4)


def test_a_step_budget_takes_the_kernels_where_they_run(keys, generator, monkeypatch):
    """Numbers of steps that fall with progress, each with its own loop of kernels."""
    monkeypatch.setattr("fluid_heads.denoising.selection.uses_kernels", lambda _device: True)
    head = make_head(num_sampling_steps=12, final_num_sampling_steps=4)
    condition = torch.randn(2, CONDITION_WIDTH, generator=generator)
    samplers = {name: head.sampler(SamplerSettings(backend=name)) for name in ("reference", "fused")}
    for progress in (0.0, 0.6, 0.99):
        drawn = [
            sampler(condition, SamplingRequest(random=keys(2), progress=progress)) for sampler in samplers.values()
        ]
        torch.testing.assert_close(*drawn, atol=1e-4, rtol=1e-4)
