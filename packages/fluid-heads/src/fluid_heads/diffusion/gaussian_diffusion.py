"""The diffusion process itself: adding noise, its posterior, and the loss of a prediction, all in float32.

Follows Ho et al. (arXiv 2006.11239) for noise prediction and Nichol and Dhariwal (arXiv 2102.09672, section
3.1) for the learned variance, which the network gives as v: its logarithm lies between those of the two
bounds, beta and the posterior's variance, and may leave that range, since v is not clamped.
"""

import math

import attrs
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluid_heads.diffusion.noise_schedule import NoiseSchedule

_NATS_PER_BIT = math.log(2.0)
_HALF_BIN = 1.0 / 255.0
_TAIL_START = 0.999
_SMALLEST_PROBABILITY = 1e-12

# The coefficients a step needs, in the order of the columns of the table that is gathered from.
_COLUMNS = (
    "sqrt_alphas_cumprod",
    "sqrt_one_minus_alphas_cumprod",
    "sqrt_recip_alphas_cumprod",
    "sqrt_recipm1_alphas_cumprod",
    "posterior_mean_coef1",
    "posterior_mean_coef2",
    "posterior_log_variance_clipped",
    "log_betas",
)


@attrs.frozen(eq=False)
class StepCoefficients:
    """The schedule at some steps, in float32, shaped to multiply vectors (a last axis of size one)."""

    signal: Float[Tensor, "*steps 1"]
    noise: Float[Tensor, "*steps 1"]
    inverse_signal: Float[Tensor, "*steps 1"]
    noise_over_signal: Float[Tensor, "*steps 1"]
    posterior_clean: Float[Tensor, "*steps 1"]
    posterior_noisy: Float[Tensor, "*steps 1"]
    lower_log_variance: Float[Tensor, "*steps 1"]
    upper_log_variance: Float[Tensor, "*steps 1"]

    def noisy(
        self, clean: Float[Tensor, "*rows channels"], noise: Float[Tensor, "*rows channels"]
    ) -> Float[Tensor, "*rows channels"]:
        """x_t: a clean token with the noise of this timestep, drawn from q(x_t | x0)."""
        return self.signal * clean + self.noise * noise

    def linear_noise(self, x: Float[Tensor, "*rows channels"], deviation: float) -> Float[Tensor, "*rows channels"]:
        """The best linear guess of the noise in `x`, if clean tokens have mean zero and this standard deviation."""
        return self.noise / (self.signal.square() * deviation**2 + self.noise.square()) * x

    def predicted_clean(
        self, x: Float[Tensor, "*rows channels"], predicted_noise: Float[Tensor, "*rows channels"]
    ) -> Float[Tensor, "*rows channels"]:
        """x0 as the predicted noise implies it. Near t = 999 its error is that of the noise times 2e4."""
        return self.inverse_signal * x - self.noise_over_signal * predicted_noise

    def posterior_mean(
        self, clean: Float[Tensor, "*rows channels"], x: Float[Tensor, "*rows channels"]
    ) -> Float[Tensor, "*rows channels"]:
        """Mean of q(x_{t-1} | x_t, x0)."""
        return self.posterior_clean * clean + self.posterior_noisy * x

    def log_variance(self, v: Float[Tensor, "*rows channels"]) -> Float[Tensor, "*rows channels"]:
        """Logarithm of the reverse step's variance for the network's v; -1 and 1 are the two bounds."""
        share = (v + 1.0) / 2.0
        return share * self.upper_log_variance + (1.0 - share) * self.lower_log_variance


class GaussianDiffusion:
    """A noise schedule on the device where it is used. Holds no parameters and no buffers."""

    def __init__(self, schedule: NoiseSchedule) -> None:
        self.schedule = schedule
        self._table = torch.stack([getattr(schedule, name) for name in _COLUMNS], dim=-1).float()
        self._on_device: dict[torch.device, Tensor] = {}
        self._single_steps: dict[torch.device, list[StepCoefficients]] = {}

    def coefficients(self, steps: Int[Tensor, "*steps"]) -> StepCoefficients:
        """The schedule at `steps`, which count the steps of this schedule (not timesteps of the full process)."""
        table = self._on_device.get(steps.device)
        if table is None:
            table = self._on_device[steps.device] = self._table.to(steps.device)
        columns = table[steps][..., None].unbind(-2)
        return StepCoefficients(
            signal=columns[0],
            noise=columns[1],
            inverse_signal=columns[2],
            noise_over_signal=columns[3],
            posterior_clean=columns[4],
            posterior_noisy=columns[5],
            lower_log_variance=columns[6],
            upper_log_variance=columns[7],
        )

    def coefficients_of(self, step: int, device: torch.device) -> StepCoefficients:
        """The schedule at one step, prepared for all of them at the first call: nothing moves between devices later."""
        prepared = self._single_steps.get(device)
        if prepared is None:
            whole = self.coefficients(torch.arange(self.schedule.num_steps, device=device))
            fields = [getattr(whole, field.name).unbind() for field in attrs.fields(StepCoefficients)]
            prepared = self._single_steps[device] = [StepCoefficients(*row) for row in zip(*fields, strict=True)]
        return prepared[step]

    def loss_terms(
        self,
        network_output: Float[Tensor, "*rows outputs"],
        *,
        clean: Float[Tensor, "*rows channels"],
        noise: Float[Tensor, "*rows channels"],
        steps: Int[Tensor, "*rows"],
    ) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows"]]:
        """Squared error of the predicted noise, and the variational bound in bits, both means over channels.

        The bound trains the variance alone: the mean's path is detached (Nichol and Dhariwal, section 3.1).
        For t > 0 it is the divergence of the reverse step from the posterior, for t = 0 the negative
        log-likelihood of the clean token in bins of width 2/255.
        """
        at = self.coefficients(steps)
        predicted_noise, v = network_output.chunk(2, dim=-1)
        mse = (noise - predicted_noise).square().mean(dim=-1)

        x = at.noisy(clean, noise)
        true_mean = at.posterior_mean(clean, x)
        mean = at.posterior_mean(at.predicted_clean(x, predicted_noise.detach()), x)
        log_variance = at.log_variance(v)
        divergence = gaussian_divergence(true_mean, at.lower_log_variance, mean, log_variance)
        reconstruction = -binned_log_likelihood(clean, mean, 0.5 * log_variance)
        nats = torch.where((steps == 0)[..., None], reconstruction, divergence)
        return mse, nats.mean(dim=-1) / _NATS_PER_BIT


def gaussian_divergence(
    mean: Float[Tensor, "*rows channels"],
    log_variance: Float[Tensor, "*rows 1"],
    other_mean: Float[Tensor, "*rows channels"],
    other_log_variance: Float[Tensor, "*rows channels"],
) -> Float[Tensor, "*rows channels"]:
    """Kullback-Leibler divergence of the first normal distribution from the second, in nats."""
    ratio = torch.exp(log_variance - other_log_variance)
    distance = (mean - other_mean).square() * torch.exp(-other_log_variance)
    return 0.5 * (other_log_variance - log_variance - 1.0 + ratio + distance)


def _normal_cdf(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Cumulative normal distribution in its tanh approximation, which the bound's reference values use."""
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def binned_log_likelihood(
    value: Float[Tensor, "*rows channels"],
    mean: Float[Tensor, "*rows channels"],
    log_scale: Float[Tensor, "*rows channels"],
) -> Float[Tensor, "*rows channels"]:
    """Log-probability, in nats, of the bin of width 2/255 around `value` under a normal distribution.

    Beyond +-0.999 the bin extends to infinity: the convention of pictures with 256 levels in [-1, 1], kept
    because the predecessor was trained with it. Probabilities are at least 1e-12.
    """
    inverse_scale = torch.exp(-log_scale)
    above = _normal_cdf(inverse_scale * (value - mean + _HALF_BIN))
    below = _normal_cdf(inverse_scale * (value - mean - _HALF_BIN))
    probability = torch.where(value < -_TAIL_START, above, torch.where(value > _TAIL_START, 1.0 - below, above - below))
    return probability.clamp(min=_SMALLEST_PROBABILITY).log()
