"""The sampler of the diffusion head: the reverse process, step by step, as the equations have it."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import attrs
import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import Guidance, SamplerBackend, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_heads.denoising.evaluation import Denoiser, Prediction
from fluid_heads.denoising.network import DenoisingNetwork
from fluid_heads.denoising.selection import DenoiserSource
from fluid_heads.diffusion.gaussian_diffusion import GaussianDiffusion, StepCoefficients
from fluid_heads.diffusion.guidance import guided_noise, rescaled_noise
from fluid_heads.diffusion.noise_schedule import NoiseSchedule, spaced_timesteps
from fluid_heads.diffusion.options import DiffusionOptions
from fluid_heads.diffusion.solvers import Solver
from fluid_heads.diffusion.step_budget import num_steps_at
from fluid_heads.request_checks import check_request

if TYPE_CHECKING:
    from fluid_heads.kernels.cuda_reverse_loop import CudaReverseLoop

STEPS_PER_DRAW = 32
"""Noise of this many steps is drawn at a time: one draw per step is slow, all steps at once takes memory.

The numbers a token gets depend on it.
"""


@attrs.frozen(kw_only=True, eq=False)
class ReverseStep:
    """One step of the reverse process, from x_t to the x of the next lower timestep."""

    timestep: int
    """t, as a timestep of the full process."""

    predicted_clean: Float[Tensor, "tokens channels"]
    mean: Float[Tensor, "tokens channels"]

    log_variance: Float[Tensor, "tokens channels"] | None
    """None for a solver that adds no noise."""

    sample: Float[Tensor, "tokens channels"]
    """x at the next lower timestep; after the last step the clean token."""


@attrs.frozen(kw_only=True, eq=False)
class _Course:
    """What the reverse process with one number of steps needs."""

    timesteps: list[int]
    diffusion: GaussianDiffusion
    solver: Solver
    denoiser: Denoiser
    loop: "CudaReverseLoop | None"
    """Runs all of it on a CUDA device, where there is one for the solver."""


class DiffusionSampler:
    """Draws tokens by the reverse process, with the solver, limits and number of steps that `options` say.

    Timesteps go from `options.first_timestep` to 0, spaced as `options.spacing` says. What depends on them alone is
    prepared once for each number of steps, when it is first needed; weights must not change while the sampler is in
    use.

    Temperature multiplies the noise that the steps of ancestral sampling draw, not the noise x starts from (as the
    predecessor's). The other solvers draw none; for them it multiplies the noise x starts from. At temperature 0
    they give one token for a condition.

    Guidance mixes the predicted noise, eps = eps_negative + scale * (eps_conditional - eps_negative), rescaled if
    `options.guidance_rescale` says so, and keeps the conditional variance; both predictions look at the same x.

    Raises `InvalidRequestError` for more steps than the reverse process has, for guidance to be rescaled over a
    single channel, and for a backend that can not run here.
    """

    def __init__(
        self,
        network: DenoisingNetwork,
        *,
        condition_width: int,
        options: DiffusionOptions,
        backend: SamplerBackend = SamplerBackend.AUTO,
    ) -> None:
        if options.guidance_rescale > 0.0 and network.channels < 2:
            raise InvalidRequestError(
                "Expected tokens of two channels or more for 'guidance_rescale', which compares standard deviations "
                f"over channels, found {network.channels}. Set it to 0."
            )
        self._network = network
        self._condition_width = condition_width
        self._options = options
        self._denoisers = DenoiserSource(network, backend)
        self._limit = None if options.token_limit is None else options.token_limit * options.token_scale
        self._courses: dict[int, _Course] = {}
        self.num_steps = options.num_sampling_steps
        """Evaluations of the network per token; with a step budget the most, which the first tokens get."""
        self.backend = self._denoisers.backend
        """Which implementation evaluates the network."""

    def __call__(
        self, condition: Float[Tensor, "tokens width"], request: SamplingRequest
    ) -> Float[Tensor, "tokens channels"]:
        """One token for every hidden vector, in float32.

        All noise of a token comes from its own row of `request.random`. Raises `InvalidRequestError` for what
        `check_request` refuses, and with a step budget for a progress outside 0 to 1.
        """
        check_request(condition, request, width=self._condition_width)
        num_steps = num_steps_at(
            request.progress,
            num_steps=self.num_steps,
            final_num_steps=self._options.final_num_sampling_steps,
        )
        loop = self._course(num_steps).loop
        if loop is not None:
            return loop(condition, request)
        channels = self._network.channels
        sample = request.random.normal((channels,))
        if condition.shape[0] == 0:
            return sample
        for step in self.reverse_process(
            condition,
            initial=sample,
            step_noise=_noise_of_steps(request.random, num_steps, channels),
            temperature=request.temperature,
            guidance=request.guidance,
            num_steps=num_steps,
        ):
            sample = step.sample
        return sample / self._options.token_scale

    def reverse_process(
        self,
        condition: Float[Tensor, "tokens width"],
        *,
        initial: Float[Tensor, "tokens channels"],
        step_noise: Iterable[Tensor] = (),
        temperature: float = 1.0,
        guidance: Guidance | None = None,
        num_steps: int | None = None,
    ) -> Iterator[ReverseStep]:
        """All steps, from given noise: `initial` is that of the start, `step_noise` has one tensor like it per step.

        Values are those of the process, `token_scale` times the tokens. The noise of the last step, to t = 0, is
        not used, and a solver that adds none leaves `step_noise` alone. `num_steps` None is the sampler's own
        number. This is what a call runs once it has drawn its noise; it is the entry for whoever wants to look at
        intermediate values or to repeat a recorded course.
        """
        num_steps = self.num_steps if num_steps is None else num_steps
        course = self._course(num_steps)
        solver = course.solver
        noise_of_steps = iter(step_noise) if solver.adds_noise else None
        evaluate = course.denoiser.begin(condition, guidance)
        x = initial.float() if solver.adds_noise else initial.float() * temperature
        previous_clean = None
        for index in reversed(range(num_steps)):
            at = course.diffusion.coefficients_of(index, x.device)
            with torch.no_grad():
                eps, v = self._noise_and_variance(evaluate(index, x), x, at, guidance)
                clean = at.predicted_clean(x, eps)
                if self._limit is not None:
                    clean = clean.clamp(-self._limit, self._limit)
                step = solver.step(
                    index,
                    x,
                    clean=clean,
                    previous_clean=previous_clean,
                    log_variance=at.log_variance(v) if solver.adds_noise else None,
                    noise=None if noise_of_steps is None else next(noise_of_steps),
                    temperature=temperature,
                )
            yield ReverseStep(
                timestep=course.timesteps[index],
                predicted_clean=clean,
                mean=step.mean,
                log_variance=step.log_variance,
                sample=step.sample,
            )
            x, previous_clean = step.sample, clean

    def _noise_and_variance(
        self,
        prediction: Prediction,
        x: Float[Tensor, "tokens channels"],
        at: StepCoefficients,
        guidance: Guidance | None,
    ) -> tuple[Float[Tensor, "tokens channels"], Float[Tensor, "tokens channels"]]:
        """The predicted noise, guided if need be, and v of the conditional prediction."""
        conditional, v = prediction.output.chunk(2, dim=-1)
        eps = conditional
        if guidance is not None:
            assert prediction.negative is not None
            eps = guided_noise(conditional, prediction.negative.chunk(2, dim=-1)[0], guidance.scale)
        if self._options.linear_skip:
            # The same for both predictions, so that it passes through guidance unchanged.
            guess = at.linear_noise(x, self._options.token_scale)
            eps, conditional = eps + guess, conditional + guess
        if guidance is not None and self._options.guidance_rescale > 0.0:
            eps = rescaled_noise(eps, conditional, self._options.guidance_rescale)
        return eps, v

    def _course(self, num_steps: int) -> _Course:
        course = self._courses.get(num_steps)
        if course is None:
            timesteps = spaced_timesteps(self._options.spacing, num_steps, first_timestep=self._options.first_timestep)
            schedule = NoiseSchedule.cosine(timesteps)
            course = self._courses[num_steps] = _Course(
                timesteps=timesteps,
                diffusion=GaussianDiffusion(schedule),
                solver=Solver(self._options.solver, schedule),
                denoiser=self._denoisers.along(timesteps),
                loop=self._loop(schedule),
            )
        return course

    def _loop(self, schedule: NoiseSchedule) -> "CudaReverseLoop | None":
        if self._denoisers.kernels is None or self._options.solver != "ddpm":
            return None
        from fluid_heads.kernels.cuda_reverse_loop import CudaReverseLoop

        return CudaReverseLoop(
            self._denoisers.kernels,
            schedule=schedule,
            condition_width=self._condition_width,
            token_scale=self._options.token_scale,
            linear_skip=self._options.linear_skip,
            limit=self._limit,
            guidance_rescale=self._options.guidance_rescale,
            capture=self._options.cuda_graph,
        )


def _noise_of_steps(random: KeyedRandom, num_steps: int, channels: int) -> Iterator[Tensor]:
    """One `tokens channels` tensor of standard normal noise for every step."""
    for first in range(0, num_steps, STEPS_PER_DRAW):
        count = min(STEPS_PER_DRAW, num_steps - first)
        yield from random.normal((count, channels)).unbind(1)
