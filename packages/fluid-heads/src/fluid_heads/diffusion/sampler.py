"""The reference sampler of the diffusion head: the reverse process, step by step, as the equations have it."""

from collections.abc import Iterable, Iterator

import attrs
import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.exchange import Guidance, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_heads.diffusion.gaussian_diffusion import GaussianDiffusion
from fluid_heads.denoising.network import DenoisingNetwork
from fluid_heads.diffusion.noise_schedule import NoiseSchedule, evenly_spaced_timesteps
from fluid_heads.diffusion.options import DiffusionOptions
from fluid_heads.request_checks import check_request

# Noise of this many steps is drawn at a time: one draw per step is slow, all steps at once takes memory. The
# numbers a token gets depend on this constant.
_STEPS_PER_DRAW = 32


@attrs.frozen(kw_only=True, eq=False)
class ReverseStep:
    """One step of the reverse process, from x_t to x_{t-1}."""

    timestep: int
    """t, as a timestep of the full process."""

    predicted_clean: Float[Tensor, "tokens channels"]
    mean: Float[Tensor, "tokens channels"]
    log_variance: Float[Tensor, "tokens channels"]

    sample: Float[Tensor, "tokens channels"]
    """x_{t-1}; after the last step the clean token."""


class AncestralSampler:
    """Draws tokens by ancestral sampling (Ho et al., arXiv 2006.11239, algorithm 2) with learned variances.

    Timesteps are spaced evenly from `options.first_timestep` to 0 and embedded once, here; weights must not
    change while the sampler is in use. Temperature multiplies the noise of every step, not the noise x starts
    from. Guidance mixes the predicted noise, eps = eps_negative + scale * (eps_conditional - eps_negative),
    and keeps the conditional variance; both predictions look at the same x.

    Raises `InvalidRequestError` for a number of steps the reverse process does not have.
    """

    def __init__(
        self, network: DenoisingNetwork, *, condition_width: int, num_steps: int, options: DiffusionOptions
    ) -> None:
        timesteps = evenly_spaced_timesteps(num_steps, first_timestep=options.first_timestep)
        self._network = network
        self._condition_width = condition_width
        self._diffusion = GaussianDiffusion(NoiseSchedule.cosine(timesteps))
        self._token_scale = options.token_scale
        self._linear_skip = options.linear_skip
        self._limit = None if options.token_limit is None else options.token_limit * options.token_scale
        device = next(network.parameters()).device
        with torch.no_grad():
            self._time_vectors = network.embed_timesteps(torch.tensor(timesteps, device=device))

    @property
    def num_steps(self) -> int:
        """Evaluations of the network per token."""
        return self._diffusion.schedule.num_steps

    def __call__(
        self, condition: Float[Tensor, "tokens width"], request: SamplingRequest
    ) -> Float[Tensor, "tokens channels"]:
        """One token for every hidden vector, in float32.

        All noise of a token comes from its own row of `request.random`, at temperature 0 the noise that x starts from
        alone. Raises `InvalidRequestError` for a temperature that is negative or not finite, hidden vectors of
        another width, and random numbers or guidance that do not have one row per token.
        """
        check_request(condition, request, width=self._condition_width)
        channels = self._network.channels
        sample = request.random.normal((channels,))
        if condition.shape[0] == 0:
            return sample
        for step in self.reverse_process(
            condition,
            initial=sample,
            step_noise=_noise_of_steps(request.random, self.num_steps, channels),
            temperature=request.temperature,
            guidance=request.guidance,
        ):
            sample = step.sample
        return sample / self._token_scale

    def reverse_process(
        self,
        condition: Float[Tensor, "tokens width"],
        *,
        initial: Float[Tensor, "tokens channels"],
        step_noise: Iterable[Tensor],
        temperature: float = 1.0,
        guidance: Guidance | None = None,
    ) -> Iterator[ReverseStep]:
        """All steps, from given noise: x starts at `initial`, and `step_noise` has one tensor like it per step.

        Values are those of the process, `token_scale` times the tokens. The noise of the last step, to t = 0, is
        not used. This is what a call runs once it has drawn its noise; it is the entry for whoever wants to look at
        intermediate values or to repeat a recorded course.
        """
        x = initial.float()
        with torch.no_grad():
            condition_vectors = self._network.project_condition(condition)
            if guidance is not None:
                negative_vectors = self._network.project_condition(guidance.negative)
                condition_vectors = torch.cat([condition_vectors, negative_vectors])
        for index, noise in zip(reversed(range(self.num_steps)), step_noise, strict=True):
            with torch.no_grad():
                step = self._step(
                    x,
                    index,
                    condition_vectors=condition_vectors,
                    noise=noise,
                    temperature=temperature,
                    guidance_scale=None if guidance is None else guidance.scale,
                )
            yield step
            x = step.sample

    def _step(
        self,
        x: Float[Tensor, "tokens channels"],
        index: int,
        *,
        condition_vectors: Float[Tensor, "rows inner"],
        noise: Float[Tensor, "tokens channels"],
        temperature: float,
        guidance_scale: Float[Tensor, "tokens"] | None,
    ) -> ReverseStep:
        at = self._diffusion.coefficients(torch.tensor(index, device=x.device))
        conditioning = self._time_vectors[index] + condition_vectors
        if guidance_scale is None:
            eps, v = self._network(x, conditioning).chunk(2, dim=-1)
        else:
            output, negative_output = self._network(torch.cat([x, x]), conditioning).chunk(2)
            eps, v = output.chunk(2, dim=-1)
            negative_eps = negative_output.chunk(2, dim=-1)[0]
            eps = negative_eps + guidance_scale.float()[:, None] * (eps - negative_eps)
        if self._linear_skip:
            eps = eps + at.linear_noise(x, self._token_scale)

        clean = at.predicted_clean(x, eps)
        if self._limit is not None:
            clean = clean.clamp(-self._limit, self._limit)
        mean = at.posterior_mean(clean, x)
        log_variance = at.log_variance(v)
        sample = mean
        if index > 0:
            sample = mean + torch.exp(0.5 * log_variance) * noise * temperature
        return ReverseStep(
            timestep=int(self._diffusion.schedule.timestep_map[index]),
            predicted_clean=clean,
            mean=mean,
            log_variance=log_variance,
            sample=sample,
        )


def _noise_of_steps(random: KeyedRandom, num_steps: int, channels: int) -> Iterator[Tensor]:
    """One `tokens channels` tensor of standard normal noise for every step."""
    for first in range(0, num_steps, _STEPS_PER_DRAW):
        count = min(_STEPS_PER_DRAW, num_steps - first)
        yield from random.normal((count, channels)).unbind(1)
