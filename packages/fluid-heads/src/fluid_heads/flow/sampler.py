"""The sampler of the flow-matching head: noise follows the predicted velocity until it is a token."""

import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.exchange import SamplerBackend, SamplingRequest
from fluid_heads.denoising.evaluation import Evaluation, Prediction
from fluid_heads.denoising.network import DenoisingNetwork
from fluid_heads.denoising.selection import DenoiserSource
from fluid_heads.flow.options import FlowOptions
from fluid_heads.flow.rectified_flow import SMALLEST_DIVISOR, TIMESTEPS_PER_UNIT, time_grid
from fluid_heads.flow.solvers import integrate, num_evaluations
from fluid_heads.precision import without_autocast
from fluid_heads.request_checks import check_request


class FlowSampler:
    """Draws tokens by following the velocity from t = 1, where x is noise, to t = 0, where it is a token.

    The noise is all that is drawn. Temperature multiplies it: at 0 every token starts from the centre of the noise, so
    that the sample is one token per condition, whatever the random numbers. Guidance mixes velocities,
    v = v_negative + scale * (v_conditional - v_negative), both at the same x.

    Weights must not change while the sampler is in use. Raises `InvalidRequestError` for a number of steps outside 1
    to 1000, and for the fused backend where there is none.
    """

    def __init__(
        self,
        network: DenoisingNetwork,
        *,
        condition_width: int,
        num_steps: int,
        options: FlowOptions,
        backend: SamplerBackend = SamplerBackend.AUTO,
    ) -> None:
        self.num_steps = num_steps
        self._times = time_grid(num_steps, shift=options.shift)
        self._options = options
        self._channels = network.channels
        self._condition_width = condition_width
        # The end of the way, where a token is clean, is never evaluated.
        timesteps = [TIMESTEPS_PER_UNIT * time for time in self._times[:-1]]
        self._denoiser = DenoiserSource(network, backend).along(timesteps)

    @property
    def num_evaluations(self) -> int:
        """Evaluations of the network per token, which `num_steps` is not for the solver `heun`."""
        return num_evaluations(self.num_steps, self._options.solver)

    @property
    def backend(self) -> SamplerBackend:
        """Which implementation runs: `reference` or `fused`."""
        return self._denoiser.backend

    def __call__(
        self, condition: Float[Tensor, "tokens width"], request: SamplingRequest
    ) -> Float[Tensor, "tokens channels"]:
        """One token for every hidden vector, in float32, from the numbers in its own row of `request.random`.

        Raises `InvalidRequestError` for a temperature that is negative or not finite, hidden vectors of another width,
        random numbers or guidance that do not have one row per token, and, on a CPU, for values that are not finite.
        """
        check_request(condition, request, width=self._condition_width)
        initial = request.temperature * request.random.normal((self._channels,))
        return self.from_noise(condition, initial, request)

    @torch.no_grad()
    def from_noise(
        self,
        condition: Float[Tensor, "tokens width"],
        initial: Float[Tensor, "tokens channels"],
        request: SamplingRequest,
    ) -> Float[Tensor, "tokens channels"]:
        """The tokens that given noise leads to, with the guidance of `request`; its temperature has been applied."""
        if condition.shape[0] == 0:
            return initial
        scale = None if request.guidance is None else request.guidance.scale.float()[:, None]
        with without_autocast(condition.device):
            evaluation = self._denoiser.begin(condition, request.guidance)
            final = integrate(
                lambda step, x: self._velocity(evaluation, scale, step, x),
                self._times,
                initial,
                solver=self._options.solver,
            )
            return final / self._options.token_scale

    def _velocity(self, evaluation: Evaluation, scale: Tensor | None, step: int, x: Tensor) -> Tensor:
        output = _mixed(evaluation(step, x), scale)
        if self._options.prediction == "velocity":
            return output
        # Linear in the prediction, so mixing clean tokens is mixing velocities.
        return (x - output) / max(self._times[step], SMALLEST_DIVISOR)


def _mixed(prediction: Prediction, scale: Tensor | None) -> Tensor:
    if scale is None or prediction.negative is None:
        return prediction.output
    return prediction.negative + scale * (prediction.output - prediction.negative)
