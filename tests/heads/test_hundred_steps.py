"""Fused samplers draw the reference's tokens over a whole reverse process, in layers large enough to be prepared."""

import pytest
import torch
from torch import nn

from fluid_core.exchange import Guidance, SamplerSettings, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_core.packed_linear import SMALLEST_PACKED_WEIGHT
from fluid_core.token_space import ContinuousTokens, Grid
from fluid_heads import DiffusionHead, DiffusionOptions

WIDTH, CHANNELS = 512, 16


def make_head(dtype: torch.dtype) -> DiffusionHead:
    """A head of the predecessor's kind whose weights count as large, with values everywhere."""
    assert WIDTH * WIDTH >= SMALLEST_PACKED_WEIGHT
    torch.manual_seed(0)
    options = DiffusionOptions(width=WIDTH, depth=2, solver="ddpm", num_sampling_steps=100)
    head = DiffusionHead(ContinuousTokens(grid=Grid(height=8, width=8), channels=CHANNELS), 64, options)
    for parameter in head.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
    return head.to(dtype).requires_grad_(False)


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("num_tokens", [1, 6, 20, 60])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_equals_reference(num_tokens: int, guided: bool, dtype: torch.dtype) -> None:
    """100 ancestral steps, for every way that products are written: to 1e-4 in float32. With weights in bfloat16, which
    the reference multiplies in bfloat16 and the fused sampler in float32, to 1% of the tokens' deviation on average.
    """
    head = make_head(dtype)
    generator = torch.Generator().manual_seed(num_tokens)
    condition, negative = torch.randn(2, num_tokens, 64, generator=generator)
    guidance = Guidance(negative=negative, scale=torch.full((num_tokens,), 2.0)) if guided else None
    drawn = {}
    for backend in ("reference", "fused"):
        request = SamplingRequest(random=KeyedRandom(torch.arange(num_tokens) + 5), guidance=guidance)
        drawn[backend] = head.sampler(SamplerSettings(backend=backend))(condition, request)
    deviation = float(drawn["reference"].std())
    assert 0.1 < deviation < 10.0
    if dtype == torch.float32:
        torch.testing.assert_close(drawn["fused"], drawn["reference"], atol=1e-4, rtol=1e-4)
    error = float((drawn["fused"] - drawn["reference"]).square().mean().sqrt())
    assert error <= 0.01 * deviation
