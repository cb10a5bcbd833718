"""Ancestral sampling of the diffusion head on a CUDA device, from hidden vectors to tokens without a look back.

The host only launches: which step it is, the schedule's coefficients and the noise are the device's own business. With
`capture=True` one step is recorded as a CUDA graph and replayed; that is experimental until it has run on a GPU.
"""

from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import Guidance, SamplerBackend, SamplingRequest
from fluid_heads.diffusion.noise_schedule import NoiseSchedule
from fluid_heads.diffusion.sampler import STEPS_PER_DRAW
from fluid_heads.kernels.cuda_denoiser import MODULATION_BYTES, CudaEvaluation, CudaNetwork
from fluid_heads.kernels.noise_streams import NoiseStreams, num_noise_draws
from fluid_heads.kernels.reverse_step import ReverseStepTable, reverse_step
from fluid_heads.request_checks import check_request

_MOST_GRAPHS = 8
"""Recorded graphs kept, one per number of tokens; each holds its own modulations."""


class CudaReverseLoop:
    """Draws tokens as the reference sampler with its ancestral solver does, from the same random numbers.

    `schedule` holds the steps that are visited, `limit` is the limit on the predicted clean token in values of the
    process (`token_limit * token_scale`), `guidance_rescale` from 0 to 1 says how far guided noise is brought back to
    the spread of the conditional one. With `capture` the number of tokens is rounded up to a power of two, or to a
    multiple of 64, so that few graphs serve all calls. Weights must not change while it is in use.

    Raises `InvalidRequestError` if `capture` is asked for on another device.
    """

    backend = SamplerBackend.FUSED

    def __init__(
        self,
        network: CudaNetwork,
        *,
        schedule: NoiseSchedule,
        condition_width: int,
        token_scale: float = 1.0,
        linear_skip: bool = False,
        limit: float | None = None,
        guidance_rescale: float = 0.0,
        modulation_bytes: int = MODULATION_BYTES,
        capture: bool = False,
    ) -> None:
        timesteps = schedule.timestep_map.tolist()[::-1]
        self._network = network
        self._denoiser = network.along(timesteps, modulation_bytes=modulation_bytes)
        if capture and network.device.type != "cuda":
            raise InvalidRequestError(
                f"Expected a network on a CUDA device to record a CUDA graph, found it on "
                f"{network.device.type}. Set capture to false."
            )
        self._condition_width = condition_width
        self._channels = network.plain.channels
        self._token_scale = token_scale
        self._limit, self._rescale, self._capture = limit, guidance_rescale, capture
        self._table = ReverseStepTable.ancestral(
            schedule,
            channels=network.plain.channels,
            token_scale=token_scale,
            linear_skip=linear_skip,
            steps_per_draw=STEPS_PER_DRAW,
            device=network.device,
        )
        self._recorded: OrderedDict[tuple[int, bool], tuple[_Course, torch.cuda.CUDAGraph]] = OrderedDict()

    @property
    def num_steps(self) -> int:
        """Evaluations of the network per token."""
        return self._denoiser.num_steps

    @torch.no_grad()
    def __call__(
        self, condition: Float[Tensor, "tokens width"], request: SamplingRequest
    ) -> Float[Tensor, "tokens channels"]:
        """One token for every hidden vector, in float32. Takes from `request.random` what the reference takes.

        Raises `InvalidRequestError` for requests that do not fit, as the reference does.
        """
        check_request(condition, request, width=self._condition_width)
        initial = request.random.normal((self._channels,))
        num_draws = num_noise_draws(self.num_steps, STEPS_PER_DRAW)
        streams = NoiseStreams.taken_from(request.random, num_draws=num_draws)
        if condition.shape[0] == 0:
            return initial
        final = self.reverse_process(
            condition, initial=initial, noise=streams, temperature=request.temperature, guidance=request.guidance
        )
        return final / self._token_scale

    @torch.no_grad()
    def reverse_process(
        self,
        condition: Float[Tensor, "tokens width"],
        *,
        initial: Float[Tensor, "tokens channels"],
        noise: NoiseStreams,
        temperature: float = 1.0,
        guidance: Guidance | None = None,
    ) -> Float[Tensor, "tokens channels"]:
        """X after the last step, in values of the process (`token_scale` times the tokens)."""
        course, graph = self._course(condition.shape[0], guided=guidance is not None)
        course.start(condition, initial, noise, temperature, guidance)
        for step in range(self.num_steps):
            course.evaluation.hold(step)
            if graph is None:
                course.advance()
            else:
                graph.replay()
        return course.x[: condition.shape[0]].clone()

    def _course(self, num_tokens: int, *, guided: bool) -> "tuple[_Course, torch.cuda.CUDAGraph | None]":
        if not self._capture:
            return self._new_course(num_tokens, guided=guided), None
        room = padded_tokens(num_tokens)
        found = self._recorded.get((room, guided))
        if found is None:
            course = self._new_course(room, guided=guided)
            found = course, _recorded_step(course)
            if len(self._recorded) >= _MOST_GRAPHS:
                self._recorded.popitem(last=False)
            self._recorded[room, guided] = found
        self._recorded.move_to_end((room, guided))
        return found

    def _new_course(self, room: int, *, guided: bool) -> "_Course":
        return _Course(
            CudaEvaluation(self._denoiser, num_tokens=room, guided=guided),
            self._table,
            room=room,
            channels=self._channels,
            dtype=self._network.dtype,
            guided=guided,
            limit=self._limit,
            rescale=self._rescale,
        )


def padded_tokens(num_tokens: int) -> int:
    """The number of tokens a graph is recorded for: the next power of two up to 64, then the next multiple of 64."""
    if num_tokens <= 64:
        return 1 << (num_tokens - 1).bit_length()
    return -(-num_tokens // 64) * 64


class _Course:
    """The tensors of one run of the process, at fixed places, and what a step does to them."""

    def __init__(
        self,
        evaluation: CudaEvaluation,
        table: ReverseStepTable,
        *,
        room: int,
        channels: int,
        dtype: torch.dtype,
        guided: bool,
        limit: float | None,
        rescale: float,
    ) -> None:
        device = evaluation.step.device
        self.evaluation, self._table = evaluation, table
        self._limit, self._rescale = limit, rescale
        self.x = torch.zeros(room, channels, device=device)
        # What the network reads; the same tensor where it computes in float32.
        self._input = self.x if dtype == torch.float32 else torch.zeros(room, channels, dtype=dtype, device=device)
        self._keys = torch.zeros(room, dtype=torch.int64, device=device)
        self._scale = torch.ones(room, device=device) if guided else None
        self._temperature = torch.ones(1, device=device)
        self._first_draw = torch.zeros(1, dtype=torch.int32, device=device)

    def start(
        self,
        condition: Float[Tensor, "tokens width"],
        initial: Float[Tensor, "tokens channels"],
        noise: NoiseStreams,
        temperature: float,
        guidance: Guidance | None,
    ) -> None:
        """Go to the first step. Tokens beyond those given keep what they had, which concerns no other token."""
        num_tokens = condition.shape[0]
        self.evaluation.take(condition, guidance)
        self.evaluation.step.zero_()
        self.x[:num_tokens].copy_(initial)
        if self._input is not self.x:
            self._input[:num_tokens].copy_(initial)
        self._keys[:num_tokens].copy_(noise.keys)
        self._first_draw.fill_(noise.first_draw)
        self._temperature.fill_(temperature)
        if guidance is not None and self._scale is not None:
            self._scale[:num_tokens].copy_(guidance.scale)

    def advance(self) -> None:
        """One step. Everything it reads lies on the device."""
        output = self.evaluation.outputs(self._input)
        reverse_step(
            output,
            self.x,
            table=self._table,
            step=self.evaluation.step,
            keys=self._keys,
            first_draw=self._first_draw,
            temperature=self._temperature,
            guidance_scale=self._scale,
            limit=self._limit,
            rescale=self._rescale,
            next_x=self.x,
            next_input=None if self._input is self.x else self._input,
        )
        self.evaluation.step.add_(1)


def _recorded_step(course: _Course) -> torch.cuda.CUDAGraph:
    """A CUDA graph of one step. It runs once before, so that kernels are compiled and libraries have their buffers."""
    device = course.x.device
    with torch.cuda.device(device):
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            course.advance()
        torch.cuda.current_stream().wait_stream(side)
        course.evaluation.step.zero_()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            course.advance()
    return graph
