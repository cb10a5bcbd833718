"""One step of ancestral sampling in one pass: from the network's output and x_t to x_{t-1}, noise included.

Guidance, the linear skip, the limit on the predicted clean token, the posterior's mean, the learned variance, the
noise and the temperature are some thirty launches in eager code. The noise is that of `KeyedRandom`, made in registers
and never written. The coefficients of all steps lie in a table on the device and the step is read from a counter
there, so that one recorded launch serves every step.
"""

from typing import no_type_check

import attrs
import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_heads.diffusion.gaussian_diffusion import GaussianDiffusion
from fluid_heads.diffusion.guidance import guided_noise, rescaled_noise
from fluid_heads.diffusion.noise_schedule import NoiseSchedule
from fluid_heads.kernels.counter_noise import normal_number
from fluid_heads.kernels.launching import launch
from fluid_heads.kernels.noise_streams import noise_positions

WIDEST_TOKEN = 1024
"""Channels of a token that fit into the registers of a block of threads together with a few other tokens."""

_NUM_COEFFICIENTS = 8
_NUM_POSITIONS = 3


@attrs.frozen(kw_only=True)
class ReverseStepTiling:
    """How tokens are cut into programs."""

    block_tokens: int
    block_channels: int
    num_warps: int

    @classmethod
    def choose(cls, channels: int) -> "ReverseStepTiling":
        """Two numbers a thread: making noise takes many registers, and there are threads enough."""
        block_channels = triton.next_power_of_2(channels)
        return cls(
            block_tokens=max(1, 64 // block_channels),
            block_channels=block_channels,
            num_warps=max(1, block_channels // 64),
        )


@attrs.frozen(kw_only=True, eq=False)
class ReverseStepTable:
    """What a step needs besides its inputs, for all steps in the order in which they are visited.

    Columns of `coefficients`: 1 / sqrt(a), sqrt(1 / a - 1), the posterior's factors of the clean and of the noisy
    token, the logarithms of the lower and the upper variance, the factor of the linear guess of the noise, and 1 where
    the step draws noise (all but the last). Columns of `positions`: see `noise_positions`.
    """

    coefficients: Float[Tensor, "steps 8"]
    positions: Int[Tensor, "steps 3"]
    all_halves_even: bool
    """Whether every draw has an even number of pairs, for which the kernel has a shorter way."""

    @classmethod
    def ancestral(
        cls,
        schedule: NoiseSchedule,
        *,
        channels: int,
        token_scale: float,
        linear_skip: bool,
        steps_per_draw: int,
        device: torch.device,
    ) -> "ReverseStepTable":
        """The table of ancestral sampling, from the noisiest step to step 0."""
        num_steps = schedule.num_steps
        at = GaussianDiffusion(schedule).coefficients(torch.arange(num_steps - 1, -1, -1, device="cpu"))
        one = torch.ones(num_steps, 1, device="cpu")
        linear = at.linear_noise(one, token_scale) if linear_skip else torch.zeros_like(one)
        draws_noise = torch.ones_like(one)
        draws_noise[-1] = 0.0
        columns = [
            at.inverse_signal,
            at.noise_over_signal,
            at.posterior_clean,
            at.posterior_noisy,
            at.lower_log_variance,
            at.upper_log_variance,
            linear,
            draws_noise,
        ]
        positions = noise_positions(num_steps, channels=channels, steps_per_draw=steps_per_draw)
        return cls(
            coefficients=torch.cat(columns, dim=1).to(device),
            positions=torch.tensor(positions, dtype=torch.int32, device="cpu").to(device),
            all_halves_even=all(half % 2 == 0 for _, half, _ in positions),
        )


@triton.jit
@no_type_check
def reverse_step_kernel(
    output_pointer,
    x_pointer,
    scale_pointer,
    keys_pointer,
    first_draw_pointer,
    temperature_pointer,
    step_pointer,
    coefficients_pointer,
    positions_pointer,
    new_x_pointer,
    input_pointer,
    num_tokens,
    channels,
    limit,
    rescale,
    GUIDED: tl.constexpr,
    RESCALED: tl.constexpr,
    LIMITED: tl.constexpr,
    HALF_IS_EVEN: tl.constexpr,
    BLOCK_TOKENS: tl.constexpr,
    BLOCK_CHANNELS: tl.constexpr,
):
    """A few whole tokens per program; all arithmetic in float32."""
    step = tl.load(step_pointer)
    row = coefficients_pointer + step * 8
    inverse_signal, noise_over_signal = tl.load(row), tl.load(row + 1)
    posterior_clean, posterior_noisy = tl.load(row + 2), tl.load(row + 3)
    lower, upper = tl.load(row + 4), tl.load(row + 5)
    linear, draws_noise = tl.load(row + 6), tl.load(row + 7)

    tokens = tl.program_id(0) * BLOCK_TOKENS + tl.arange(0, BLOCK_TOKENS)
    columns = tl.arange(0, BLOCK_CHANNELS)
    inside_tokens = tokens < num_tokens
    inside = inside_tokens[:, None] & (columns < channels)[None, :]
    at = tokens[:, None].to(tl.int64) * channels + columns[None, :]
    output_at = tokens[:, None].to(tl.int64) * (2 * channels) + columns[None, :]

    x = tl.load(x_pointer + at, mask=inside, other=0.0)
    eps = tl.load(output_pointer + output_at, mask=inside, other=0.0).to(tl.float32)
    v = tl.load(output_pointer + output_at + channels, mask=inside, other=0.0).to(tl.float32)
    if GUIDED:
        scale = tl.load(scale_pointer + tokens, mask=inside_tokens, other=1.0)[:, None]
        negative_at = (tokens + num_tokens)[:, None].to(tl.int64) * (2 * channels) + columns[None, :]
        negative = tl.load(output_pointer + negative_at, mask=inside, other=0.0).to(tl.float32)
        # The linear guess is the same for both predictions; spreads are those of the whole predicted noise.
        guided = negative + scale * (eps - negative) + linear * x
        if RESCALED:
            plain = tl.where(inside, eps + linear * x, 0.0)
            plain_centred = tl.where(inside, plain - (tl.sum(plain, axis=1) / channels)[:, None], 0.0)
            guided_centred = tl.where(inside, guided - (tl.sum(guided, axis=1) / channels)[:, None], 0.0)
            # Ratio of two standard deviations over the channels: their denominators cancel.
            plain_spread = tl.sqrt_rn(tl.sum(plain_centred * plain_centred, axis=1))
            guided_spread = tl.sqrt_rn(tl.sum(guided_centred * guided_centred, axis=1))
            ratio = plain_spread / tl.maximum(guided_spread, 1e-12)
            guided = rescale * (guided * ratio[:, None]) + (1.0 - rescale) * guided
        eps = guided
    else:
        eps += linear * x

    clean = inverse_signal * x - noise_over_signal * eps
    if LIMITED:
        clean = tl.minimum(tl.maximum(clean, -limit), limit)
    mean = posterior_clean * clean + posterior_noisy * x
    share = (v + 1.0) * 0.5
    log_variance = share * upper + (1.0 - share) * lower

    position = positions_pointer + step * 3
    draw = tl.load(first_draw_pointer) + tl.load(position)
    half, first_number = tl.load(position + 1), tl.load(position + 2)
    keys = tl.load(keys_pointer + tokens, mask=inside_tokens, other=0)
    noise = normal_number(keys[:, None], draw, (first_number + columns)[None, :], half, HALF_IS_EVEN)
    noisy = mean + tl.exp(0.5 * log_variance) * noise * tl.load(temperature_pointer)
    sample = tl.where(draws_noise > 0.0, noisy, mean)
    tl.store(new_x_pointer + at, sample, mask=inside)
    tl.store(input_pointer + at, sample.to(input_pointer.dtype.element_ty), mask=inside)


def reverse_step(
    output: Float[Tensor, "rows outputs"],
    x: Float[Tensor, "tokens channels"],
    *,
    table: ReverseStepTable,
    step: Int[Tensor, "1"],
    keys: Int[Tensor, "tokens"],
    first_draw: Int[Tensor, "1"],
    temperature: Float[Tensor, "1"],
    guidance_scale: Float[Tensor, "tokens"] | None = None,
    limit: float | None = None,
    rescale: float = 0.0,
    next_x: Float[Tensor, "tokens channels"] | None = None,
    next_input: Float[Tensor, "tokens channels"] | None = None,
) -> Float[Tensor, "tokens channels"]:
    """X of the next step, in float32.

    `output` is [noise | v]; with guidance it has twice as many rows, the negative ones last. `step` counts from 0 at
    the noisiest step, and is read on the device like all other one-element tensors. The result is written to `next_x`
    (which may be `x`) where that is given, and once more to `next_input`, in its type: what the network reads next.
    Raises `InvalidRequestError` for shapes or types that do not fit.
    """
    num_tokens, channels = x.shape
    _check(output, x, table, guidance_scale)
    next_x = torch.empty_like(x) if next_x is None else next_x
    if num_tokens == 0:
        return next_x
    tiling = ReverseStepTiling.choose(channels)
    launch(
        reverse_step_kernel,
        (triton.cdiv(num_tokens, tiling.block_tokens),),
        output,
        x,
        x if guidance_scale is None else guidance_scale,
        keys,
        first_draw,
        temperature,
        step,
        table.coefficients,
        table.positions,
        next_x,
        next_x if next_input is None else next_input,
        num_tokens,
        channels,
        0.0 if limit is None else limit,
        rescale,
        reads=(output, x, guidance_scale, keys, table.coefficients[0], table.positions[0]),
        writes=(next_x, next_input),
        GUIDED=guidance_scale is not None,
        RESCALED=guidance_scale is not None and rescale > 0.0,
        LIMITED=limit is not None,
        HALF_IS_EVEN=table.all_halves_even,
        BLOCK_TOKENS=tiling.block_tokens,
        BLOCK_CHANNELS=tiling.block_channels,
        num_warps=tiling.num_warps,
    )
    return next_x


def reverse_step_reference(
    output: Float[Tensor, "rows outputs"],
    x: Float[Tensor, "tokens channels"],
    noise: Float[Tensor, "tokens channels"],
    *,
    table: ReverseStepTable,
    step: Int[Tensor, "1"],
    temperature: Float[Tensor, "1"],
    guidance_scale: Float[Tensor, "tokens"] | None = None,
    limit: float | None = None,
    rescale: float = 0.0,
) -> Float[Tensor, "tokens channels"]:
    """The same in eager code, with the noise given."""
    at = table.coefficients.index_select(0, step)[0]
    if guidance_scale is None:
        eps, v = output.float().chunk(2, dim=1)
        eps = eps + at[6] * x
    else:
        conditional, negative = output.float().chunk(2)
        eps, v = conditional.chunk(2, dim=1)
        negative_eps = negative.chunk(2, dim=1)[0]
        guided = guided_noise(eps, negative_eps, guidance_scale) + at[6] * x
        eps = guided if rescale == 0.0 else rescaled_noise(guided, eps + at[6] * x, rescale)
    clean = at[0] * x - at[1] * eps
    if limit is not None:
        clean = clean.clamp(-limit, limit)
    mean = at[2] * clean + at[3] * x
    share = (v + 1.0) / 2.0
    log_variance = share * at[5] + (1.0 - share) * at[4]
    noisy = mean + torch.exp(0.5 * log_variance) * noise * temperature
    return torch.where(at[7] > 0.0, noisy, mean)


def _check(output: Tensor, x: Tensor, table: ReverseStepTable, guidance_scale: Tensor | None) -> None:
    num_tokens, channels = x.shape
    expected = ((1 if guidance_scale is None else 2) * num_tokens, 2 * channels)
    if tuple(output.shape) != expected:
        raise InvalidRequestError(
            f"Expected an output of shape {expected}, [noise | v] for every token and, with guidance, for the negative "
            f"conditions below; found {tuple(output.shape)}."
        )
    if x.dtype != torch.float32 or channels > WIDEST_TOKEN:
        raise InvalidRequestError(
            f"Expected float32 tokens of at most {WIDEST_TOKEN} channels, found {x.dtype} with {channels}."
        )
    if not (output.is_contiguous() and x.is_contiguous()):
        raise InvalidRequestError("Expected contiguous outputs and tokens; call contiguous() on them.")
    if table.coefficients.shape[1] != _NUM_COEFFICIENTS or table.positions.shape[1] != _NUM_POSITIONS:
        raise InvalidRequestError("Expected a table made by ReverseStepTable.ancestral.")
