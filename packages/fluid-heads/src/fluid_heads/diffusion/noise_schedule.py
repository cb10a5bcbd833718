"""The cosine noise schedule and its respacing, as tables over timesteps in float64.

With a = `alphas_cumprod[t]`, a token x0 becomes x_t = sqrt(a) x0 + sqrt(1 - a) noise (Nichol and Dhariwal,
arXiv 2102.09672, section 3.2). Sampling may visit only some of the timesteps: the betas are then those of the
coarser process whose signal levels agree with the fine one at the timesteps it keeps.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import attrs
import torch
from jaxtyping import Float64, Int
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_heads.diffusion.options import NUM_TIMESTEPS

_LARGEST_BETA = 0.999
_OFFSET = 0.008


def _signal_level(time: float) -> float:
    """Share of the token's variance that is left at `time` in [0, 1]: cos^2 with a small offset."""
    return math.cos((time + _OFFSET) / (1.0 + _OFFSET) * math.pi / 2.0) ** 2


def cosine_betas(num_timesteps: int = NUM_TIMESTEPS) -> Float64[Tensor, "timesteps"]:
    """Variance of the noise added at every timestep; capped at 0.999, which concerns the last one."""
    levels = [_signal_level(step / num_timesteps) for step in range(num_timesteps + 1)]
    betas = [min(1.0 - after / before, _LARGEST_BETA) for before, after in pairwise(levels)]
    # The tables are small and must be real numbers even while a model is laid out on the meta device.
    return torch.tensor(betas, dtype=torch.float64, device="cpu")


def spaced_timesteps(spacing: str, num_steps: int, *, first_timestep: int) -> list[int]:
    """The timesteps of a spacing by its name, one of `options.SPACINGS`."""
    choose = {"even": evenly_spaced_timesteps, "quadratic": quadratic_timesteps}[spacing]
    return choose(num_steps, first_timestep=first_timestep)


def evenly_spaced_timesteps(num_steps: int, *, first_timestep: int = NUM_TIMESTEPS - 1) -> list[int]:
    """`num_steps` timesteps from 0 to `first_timestep`, rising, both ends included.

    They are round(i * first_timestep / (num_steps - 1)), ties to even; with 999 these are the predecessor's.
    A single step goes from `first_timestep` to a clean token at once. Raises `InvalidRequestError` if there
    are not that many timesteps.
    """
    _check_num_steps(num_steps, first_timestep)
    if num_steps == 1:
        return [first_timestep]
    return [round(index * first_timestep / (num_steps - 1)) for index in range(num_steps)]


def quadratic_timesteps(num_steps: int, *, first_timestep: int = NUM_TIMESTEPS - 1) -> list[int]:
    """As `evenly_spaced_timesteps`, but growing with the square of their number: small steps near the clean token.

    They are round((i / (num_steps - 1))^2 * first_timestep), each at least one more than the one before (Song et al.,
    arXiv 2010.02502, appendix D.2).
    """
    _check_num_steps(num_steps, first_timestep)
    if num_steps == 1:
        return [first_timestep]
    timesteps = [0]
    for index in range(1, num_steps):
        wanted = round((index / (num_steps - 1)) ** 2 * first_timestep)
        # Steps that are many leave no room for gaps.
        latest = first_timestep - (num_steps - 1 - index)
        timesteps.append(min(max(wanted, timesteps[-1] + 1), latest))
    return timesteps


def _check_num_steps(num_steps: int, first_timestep: int) -> None:
    if not 1 <= num_steps <= first_timestep + 1:
        raise InvalidRequestError(
            f"Expected 1 to {first_timestep + 1} sampling steps, since the reverse process starts at timestep "
            f"{first_timestep}, found {num_steps}. Choose a number in that range."
        )


@attrs.frozen(kw_only=True, eq=False)
class NoiseSchedule:
    """Coefficients of the forward and the reverse process at every step, each a float64 table.

    `timestep_map[i]` is the timestep of the full process that step i stands for: the number the network was
    trained on. The posterior q(x_{i-1} | x_i, x0) has mean `posterior_mean_coef1` x0 + `posterior_mean_coef2`
    x_i and variance `posterior_variance`. That variance is zero at step 0; its clipped logarithm repeats the
    entry of step 1 there.
    """

    timestep_map: Int[Tensor, "steps"]
    betas: Float64[Tensor, "steps"]
    log_betas: Float64[Tensor, "steps"]
    alphas_cumprod: Float64[Tensor, "steps"]
    alphas_cumprod_prev: Float64[Tensor, "steps"]
    alphas_cumprod_next: Float64[Tensor, "steps"]
    sqrt_alphas_cumprod: Float64[Tensor, "steps"]
    sqrt_one_minus_alphas_cumprod: Float64[Tensor, "steps"]
    log_one_minus_alphas_cumprod: Float64[Tensor, "steps"]
    sqrt_recip_alphas_cumprod: Float64[Tensor, "steps"]
    sqrt_recipm1_alphas_cumprod: Float64[Tensor, "steps"]
    posterior_variance: Float64[Tensor, "steps"]
    posterior_log_variance_clipped: Float64[Tensor, "steps"]
    posterior_mean_coef1: Float64[Tensor, "steps"]
    posterior_mean_coef2: Float64[Tensor, "steps"]

    @property
    def num_steps(self) -> int:
        """Number of steps of the process."""
        return int(self.timestep_map.shape[0])

    @classmethod
    def cosine(cls, timesteps: Sequence[int] | None = None) -> "NoiseSchedule":
        """The cosine schedule at the given rising timesteps of the full process; None keeps all 1000."""
        kept = torch.tensor(range(NUM_TIMESTEPS) if timesteps is None else timesteps, device="cpu")
        levels = torch.cumprod(1.0 - cosine_betas(), dim=0)[kept]
        before = torch.cat([torch.ones_like(levels[:1]), levels[:-1]])
        return cls.from_betas(1.0 - levels / before, kept)

    @classmethod
    def from_betas(cls, betas: Float64[Tensor, "steps"], timestep_map: Int[Tensor, "steps"]) -> "NoiseSchedule":
        """All tables that follow from the betas (Ho et al., arXiv 2006.11239, equations 4 to 7)."""
        alphas = 1.0 - betas
        level = torch.cumprod(alphas, dim=0)
        level_before = torch.cat([torch.ones_like(level[:1]), level[:-1]])
        level_after = torch.cat([level[1:], torch.zeros_like(level[:1])])
        posterior_variance = betas * (1.0 - level_before) / (1.0 - level)
        # A process of a single step never uses its posterior variance; beta keeps the logarithm finite.
        at_step_0 = posterior_variance[1:2] if len(betas) > 1 else betas
        return cls(
            timestep_map=timestep_map,
            betas=betas,
            log_betas=betas.log(),
            alphas_cumprod=level,
            alphas_cumprod_prev=level_before,
            alphas_cumprod_next=level_after,
            sqrt_alphas_cumprod=level.sqrt(),
            sqrt_one_minus_alphas_cumprod=(1.0 - level).sqrt(),
            log_one_minus_alphas_cumprod=(1.0 - level).log(),
            sqrt_recip_alphas_cumprod=(1.0 / level).sqrt(),
            sqrt_recipm1_alphas_cumprod=(1.0 / level - 1.0).sqrt(),
            posterior_variance=posterior_variance,
            posterior_log_variance_clipped=torch.cat([at_step_0, posterior_variance[1:]]).log(),
            posterior_mean_coef1=betas * level_before.sqrt() / (1.0 - level),
            posterior_mean_coef2=(1.0 - level_before) * alphas.sqrt() / (1.0 - level),
        )
