"""The reference sampler of the softmax head, as the equations have it."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluid_core.exchange import SamplerBackend, SamplingRequest
from fluid_heads.request_checks import check_request
from fluid_heads.softmax.gumbel import gumbel_
from fluid_heads.softmax.limits import keep_likeliest, keep_nucleus
from fluid_heads.softmax.options import SoftmaxOptions


class SoftmaxSampler:
    """Draws ids by the Gumbel-max trick: argmax(logits / temperature + Gumbel noise).

    Guidance mixes logits, l = l_negative + scale * (l_conditional - l_negative). Among these `options.top_k` keeps the
    likeliest, and `options.top_p` the nucleus of the distribution that temperature and top-k leave. Temperature 0 takes
    the likeliest id. The noise of a token depends on its own row of `request.random` alone.
    """

    backend = SamplerBackend.REFERENCE
    num_steps = 1

    def __init__(self, logits: Callable[[Tensor], Tensor], *, condition_width: int, options: SoftmaxOptions) -> None:
        self._logits = logits
        self._condition_width = condition_width
        self._options = options

    @torch.no_grad()
    def __call__(self, condition: Float[Tensor, "tokens width"], request: SamplingRequest) -> Int[Tensor, "tokens"]:
        """One id for every hidden vector. Raises `InvalidRequestError` for a request that does not fit."""
        return self._draw(self._guided_logits(condition, request), request)

    @torch.no_grad()
    def with_confidence(
        self, condition: Float[Tensor, "tokens width"], request: SamplingRequest
    ) -> tuple[Int[Tensor, "tokens"], Float[Tensor, "tokens"]]:
        """One id for every hidden vector, and its log-probability in nats.

        That is its probability after guidance, among the whole vocabulary and at temperature 1. Raises
        `InvalidRequestError` for a request that does not fit.
        """
        logits = self._guided_logits(condition, request)
        ids = self._draw(logits, request)
        return ids, logits.log_softmax(dim=1).gather(1, ids[:, None])[:, 0]

    def _guided_logits(self, condition: Tensor, request: SamplingRequest) -> Float[Tensor, "tokens vocabulary"]:
        check_request(condition, request, width=self._condition_width)
        logits: Tensor = self._logits(condition)
        if request.guidance is not None:
            negative = self._logits(request.guidance.negative)
            logits = negative + request.guidance.scale.float()[:, None] * (logits - negative)
        return logits

    def _draw(self, logits: Float[Tensor, "tokens vocabulary"], request: SamplingRequest) -> Int[Tensor, "tokens"]:
        if request.temperature == 0.0:
            return logits.argmax(dim=1)
        # Only differences of logits matter. From zero down, a small temperature overflows to -inf and no further.
        logits = (logits - logits.amax(dim=1, keepdim=True)) / request.temperature
        if self._options.top_k is not None:
            logits = keep_likeliest(logits, self._options.top_k)
        if self._options.top_p is not None:
            logits = keep_nucleus(logits, self._options.top_p)
        return (logits + gumbel_(request.random.uniform((logits.shape[1],)))).argmax(dim=1)
