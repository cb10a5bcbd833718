"""The kernels as compiled code, on a CUDA device, against the eager references on the same device.

Run on their own (`make test-gpu`): the other tests here need Triton's interpreter, which no process has beside the
compiler.
"""

import pytest
import torch

from fluid_core.exchange import Guidance, SamplerSettings, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import ContinuousTokens, Grid
from fluid_heads.diffusion.head import DiffusionHead
from fluid_heads.diffusion.noise_schedule import NoiseSchedule, evenly_spaced_timesteps
from fluid_heads.diffusion.options import DiffusionOptions
from fluid_heads.kernels import kernels_run_on
from fluid_heads.kernels.cuda_denoiser import CudaNetwork
from fluid_heads.kernels.cuda_reverse_loop import CudaReverseLoop
from fluid_heads.kernels.modulated_norm import modulated_norm, modulated_norm_reference
from fluid_heads.kernels.vocabulary_sampling import draw_from_vocabulary
from fluid_heads.softmax.gumbel import gumbel_

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.skipif(not kernels_run_on("cuda"), reason="this process has Triton's interpreter; use `make test-gpu`"),
]
WIDTH, CHANNELS = 1024, 16


def normal(*shape, seed=0, dtype=torch.float32):
    """Seeded normal numbers on the device."""
    return torch.randn(*shape, generator=torch.Generator("cuda").manual_seed(seed), device="cuda").to(dtype)


def keys(count):
    """A random source on the device."""
    return KeyedRandom(torch.arange(7, 7 + count, device="cuda") * 2**40 + 12345)


@pytest.mark.parametrize("rows", [1, 5, 512])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2**-6)])
def test_modulated_norm(rows, dtype, tolerance):
    """Both results agree with float32 arithmetic on the same numbers."""
    shift, scale, gate = normal(3, rows, 3 * WIDTH, dtype=dtype).split(WIDTH, dim=2)
    x, update = normal(rows, WIDTH, seed=1, dtype=dtype), normal(rows, WIDTH, seed=2, dtype=dtype)
    step = torch.tensor([4], dtype=torch.int32, device="cuda")
    found = modulated_norm(x, shift=shift, scale=scale, step=step, update=update, gate=gate)
    expected = modulated_norm_reference(
        x.float(), shift=shift.float(), scale=scale.float(), step=step, update=update.float(), gate=gate.float()
    )
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.float(), other, atol=4 * tolerance, rtol=tolerance)


@pytest.mark.parametrize("capture", [False, True])
@pytest.mark.parametrize(
    ("tokens", "channels", "guided"), [(1, 16, False), (3, 16, True), (40, 5, True), (70, 48, False)]
)
def test_reverse_loop(capture, tokens, channels, guided):
    """100 steps give the reference's tokens to 1e-3 (products differ in their order), launched or replayed, twice."""
    options = DiffusionOptions(width=256, depth=2, solver="ddpm", spacing="even", num_sampling_steps=100)
    torch.manual_seed(0)
    head = DiffusionHead(ContinuousTokens(grid=Grid(height=4, width=4), channels=channels), 64, options)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    head = head.to("cuda").requires_grad_(False)
    schedule = NoiseSchedule.cosine(evenly_spaced_timesteps(100, first_timestep=options.first_timestep))
    loop = CudaReverseLoop(
        CudaNetwork(head.network),
        schedule=schedule,
        condition_width=64,
        limit=options.token_limit,
        modulation_bytes=2**22,
        capture=capture,
    )
    reference = head.sampler(SamplerSettings(backend="reference"))
    for seed in range(2):
        condition = normal(tokens, 64, seed=seed)
        guidance = Guidance(negative=normal(tokens, 64, seed=9), scale=torch.linspace(0.5, 3.0, tokens, device="cuda"))
        given = {"temperature": 0.9, "guidance": guidance if guided else None}
        expected = reference(condition, SamplingRequest(random=keys(tokens), **given))
        found = loop(condition, SamplingRequest(random=keys(tokens), **given))
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


def test_reverse_loop_waits_for_nothing():
    """The loop runs while torch is told to raise at every wait for the device."""
    options = DiffusionOptions(width=64, depth=1)
    head = DiffusionHead(ContinuousTokens(grid=Grid(height=4, width=4), channels=CHANNELS), 64, options).to("cuda")
    schedule = NoiseSchedule.cosine(evenly_spaced_timesteps(20, first_timestep=980))
    loop = CudaReverseLoop(CudaNetwork(head.network), schedule=schedule, condition_width=64)
    condition, request = normal(3, 64), SamplingRequest(random=keys(3))
    loop(condition, request)
    torch.cuda.set_sync_debug_mode("error")
    try:
        loop(condition, request)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("tokens", "vocabulary"), [(1, 8192), (5, 16384), (100, 1003), (300, 8192)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_vocabulary_sampling(tokens, vocabulary, dtype, temperature):
    """Ids have the largest sums of float64 logits and the same noise, or come within 1e-3 of them."""
    condition, weight = normal(tokens, WIDTH), (normal(vocabulary, WIDTH, seed=1) / WIDTH**0.5).to(dtype)
    bias = normal(vocabulary, seed=2).to(dtype)
    guidance = Guidance(negative=normal(tokens, WIDTH, seed=3), scale=torch.full((tokens,), 2.5, device="cuda"))
    ids = draw_from_vocabulary(condition, weight, bias, random=keys(tokens), temperature=temperature, guidance=guidance)
    hidden = torch.lerp(guidance.negative.double(), condition.double(), guidance.scale.double()[:, None])
    sums = hidden @ weight.double().T + bias.double()
    if temperature > 0.0:
        sums += temperature * gumbel_(keys(tokens).uniform((vocabulary,))).double()
    short = sums.max(dim=1).values - sums.gather(1, ids[:, None])[:, 0]
    assert float(short.max()) <= 1e-3
