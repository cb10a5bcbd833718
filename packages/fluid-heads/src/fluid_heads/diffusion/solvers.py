"""Solvers of the reverse process: given a predicted clean token, where to go from one noise level to the next.

All of them are one line, x_{i-1} ~ N(clean x0_i + noisy x_i + previous x0_{i+1}, variance), where x0_i is the token
predicted at step i. They differ in the three weights, which depend on the schedule alone and are computed here in
float64, and in whether the variance is the learned one or zero. A solver neither evaluates the network nor keeps
state, so that every implementation of the loop around it can use it.

Notation: alpha and sigma are the square roots of the shares of token and noise in x_i, alpha' and sigma' those of
the next, cleaner x_{i-1}; after the last step, i = 0, they are 1 and 0.
"""

from collections.abc import Callable

import attrs
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from fluid_heads.diffusion.noise_schedule import NoiseSchedule


@attrs.frozen(kw_only=True, eq=False)
class SolverWeights:
    """The weights of a solver at every step of a schedule.

    With `adds_noise` each step but the last draws noise of the learned variance; without, the noise that x starts
    from decides the token. `previous` is zero where a step has no use for the prediction before it, the first step
    and the last among them.
    """

    clean: Float64[Tensor, "steps"]
    noisy: Float64[Tensor, "steps"]
    previous: Float64[Tensor, "steps"]
    adds_noise: bool


@attrs.frozen(kw_only=True, eq=False)
class SolverStep:
    """The result of one step: x_{i-1}, and the normal distribution it comes from.

    `log_variance` is None for a solver that adds no noise; `sample` is then the mean.
    """

    mean: Float[Tensor, "tokens channels"]
    log_variance: Float[Tensor, "tokens channels"] | None
    sample: Float[Tensor, "tokens channels"]


def ancestral_weights(schedule: NoiseSchedule) -> SolverWeights:
    """Ancestral sampling: the mean of the posterior q(x_{i-1} | x_i, x0), with noise.

    Ho et al. (arXiv 2006.11239), equation 7 and algorithm 2; the variance is learned as in Nichol and Dhariwal
    (arXiv 2102.09672, equation 15).
    """
    return SolverWeights(
        clean=schedule.posterior_mean_coef1,
        noisy=schedule.posterior_mean_coef2,
        previous=torch.zeros_like(schedule.betas),
        adds_noise=True,
    )


def ddim_weights(schedule: NoiseSchedule) -> SolverWeights:
    """DDIM without noise (eta = 0): alpha' x0 + sigma' eps, where eps = (x - alpha x0) / sigma.

    Song et al. (arXiv 2010.02502), equation 12. The noise eps follows from x0, so that limiting x0 limits both.
    """
    alpha, sigma = _signal_and_noise(schedule.alphas_cumprod)
    next_alpha, next_sigma = _signal_and_noise(schedule.alphas_cumprod_prev)
    return SolverWeights(
        clean=next_alpha - next_sigma * alpha / sigma,
        noisy=next_sigma / sigma,
        previous=torch.zeros_like(alpha),
        adds_noise=False,
    )


def dpm_solver_weights(schedule: NoiseSchedule) -> SolverWeights:
    """DPM-Solver++ of second order in several steps (2M), on predicted tokens.

    Lu et al. (arXiv 2211.01095), algorithm 2: with lambda = log(alpha / sigma), h = lambda' - lambda and r the
    preceding h over this one,

        x' = sigma' / sigma x - alpha' (e^-h - 1) D,   D = (1 + 1 / 2r) x0_i - 1 / 2r x0_{i+1}.

    The first step has nothing before it, and the last, whose h is infinite, ends at its prediction: both are of
    first order (D = x0_i), where the formula is that of DDIM.
    """
    alpha, sigma = _signal_and_noise(schedule.alphas_cumprod)
    next_alpha, next_sigma = _signal_and_noise(schedule.alphas_cumprod_prev)
    half_log_ratio = torch.log(alpha / sigma)
    # Step i leads from entry i to entry i - 1; the one before it led from entry i + 1 to entry i.
    h = torch.log(next_alpha / next_sigma) - half_log_ratio
    extrapolation = torch.zeros_like(alpha)
    extrapolation[1:-1] = h[1:-1] / (2.0 * h[2:])
    towards_clean = -next_alpha * torch.expm1(-h)
    return SolverWeights(
        clean=towards_clean * (1.0 + extrapolation),
        noisy=next_sigma / sigma,
        previous=-towards_clean * extrapolation,
        adds_noise=False,
    )


def _signal_and_noise(level: Float64[Tensor, "steps"]) -> tuple[Float64[Tensor, "steps"], Float64[Tensor, "steps"]]:
    """The pair of alpha and sigma for each share of the token's variance that is left."""
    return level.sqrt(), (1.0 - level).sqrt()


_WEIGHTS: dict[str, Callable[[NoiseSchedule], SolverWeights]] = {
    "ddpm": ancestral_weights,
    "ddim": ddim_weights,
    "dpm++": dpm_solver_weights,
}


class Solver:
    """A solver for the steps of one schedule, counted as the schedule counts them: the last step is number 0."""

    def __init__(self, name: str, schedule: NoiseSchedule) -> None:
        self.weights = _WEIGHTS[name](schedule)
        table = torch.stack([self.weights.clean, self.weights.noisy, self.weights.previous], dim=1)
        self._rows: list[list[float]] = table.tolist()

    @property
    def adds_noise(self) -> bool:
        """Whether steps draw noise. If not, x must start from noise times the temperature."""
        return self.weights.adds_noise

    def step(
        self,
        index: int,
        x: Float[Tensor, "tokens channels"],
        *,
        clean: Float[Tensor, "tokens channels"],
        previous_clean: Float[Tensor, "tokens channels"] | None,
        log_variance: Float[Tensor, "tokens channels"] | None = None,
        noise: Float[Tensor, "tokens channels"] | None = None,
        temperature: float = 1.0,
    ) -> SolverStep:
        """From x_i to x_{i-1}, with i = `index`.

        `clean` is the token predicted from `x`, `previous_clean` the one predicted a step before (None at the
        first step). A solver that adds noise needs `log_variance` and, but for the last step, standard normal
        `noise`, which `temperature` multiplies; the others ignore all three.
        """
        clean_weight, noisy_weight, previous_weight = self._rows[index]
        mean = clean_weight * clean + noisy_weight * x
        if previous_clean is not None and previous_weight != 0.0:
            mean = mean + previous_weight * previous_clean
        if not self.adds_noise:
            return SolverStep(mean=mean, log_variance=None, sample=mean)
        assert log_variance is not None
        if index == 0:
            return SolverStep(mean=mean, log_variance=log_variance, sample=mean)
        assert noise is not None
        sample = mean + torch.exp(0.5 * log_variance) * noise * temperature
        return SolverStep(mean=mean, log_variance=log_variance, sample=sample)
