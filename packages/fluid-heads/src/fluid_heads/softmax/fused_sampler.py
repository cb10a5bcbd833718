"""The fused sampler of the softmax head: one vocabulary product, and noise in pieces that fit the cache."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from fluid_core.exchange import SamplerBackend, SamplingRequest
from fluid_heads.precision import without_autocast
from fluid_heads.request_checks import check_request
from fluid_heads.softmax.gumbel import gumbel_

# Numbers of noise drawn at a time. The generator passes over them about a hundred times, and takes most of the time for
# many tokens: few enough to stay near the processor, enough to hide what starting an operation costs.
_NOISE_AT_A_TIME = 2**18

# Logits held at a time. More tokens share one reading of the weights; this many take 16 MiB.
_LOGITS_AT_A_TIME = 2**22


class FusedSoftmaxSampler:
    """Draws what the reference `SoftmaxSampler` draws from the whole vocabulary, with less work and memory.

    Logits are linear in the hidden vector, so guidance mixes hidden vectors instead of logits, and both predictions
    take one vocabulary product. Noise and logits exist for some tokens at a time. From the same random numbers the ids
    are those of the reference, unless two ids are tied within the rounding of float32.

    `weight` and `bias` are kept in float32: weights must not change while the sampler is in use.
    """

    backend = SamplerBackend.FUSED
    num_steps = 1

    def __init__(self, weight: Float[Tensor, "vocabulary width"], bias: Float[Tensor, "vocabulary"]) -> None:
        self._weight = weight.detach().float()
        self._bias = bias.detach().float()

    @torch.no_grad()
    def __call__(self, condition: Float[Tensor, "tokens width"], request: SamplingRequest) -> Int[Tensor, "tokens"]:
        """One id for every hidden vector. Raises `InvalidRequestError` for a request that does not fit."""
        return self._draw(condition, request, confident=False)[0]

    @torch.no_grad()
    def with_confidence(
        self, condition: Float[Tensor, "tokens width"], request: SamplingRequest
    ) -> tuple[Int[Tensor, "tokens"], Float[Tensor, "tokens"]]:
        """One id for every hidden vector, and its log-probability as `SoftmaxSampler.with_confidence` has it.

        Raises `InvalidRequestError` for a request that does not fit.
        """
        return self._draw(condition, request, confident=True)

    def _draw(self, condition: Tensor, request: SamplingRequest, *, confident: bool) -> tuple[Tensor, Tensor]:
        """Ids, and their log-probabilities where they are asked for."""
        vocabulary_size, width = self._weight.shape
        check_request(condition, request, width=width)
        hidden = condition.float()
        if request.guidance is not None:
            # Unlike negative + scale * (hidden - negative), exact at the scales 0 and 1.
            hidden = torch.lerp(request.guidance.negative.float(), hidden, request.guidance.scale.float()[:, None])
        group_size = max(1, _NOISE_AT_A_TIME // vocabulary_size) if hidden.device.type == "cpu" else len(hidden) or 1
        groups_at_a_time = max(1, _LOGITS_AT_A_TIME // (group_size * vocabulary_size))
        noise = request.random.uniform_in_groups((vocabulary_size,), group_size) if request.temperature > 0.0 else None
        ids, confidence = [], []
        with without_autocast(hidden.device):
            for chunk in hidden.split(group_size * groups_at_a_time):  # type: ignore[no-untyped-call]
                logits = functional.linear(chunk, self._weight, self._bias)
                normaliser = logits.logsumexp(dim=1) if confident else None
                if noise is not None:
                    for group in logits.split(group_size):  # type: ignore[no-untyped-call]
                        group.add_(gumbel_(next(noise)), alpha=request.temperature)
                ids.append(logits.argmax(dim=1))
                if normaliser is not None:
                    # The noise was added over the logits: those of the drawn ids are computed once more.
                    drawn = (chunk * self._weight[ids[-1]]).sum(dim=1) + self._bias[ids[-1]]
                    confidence.append(drawn - normaliser)
        return torch.cat(ids), torch.cat(confidence) if confident else hidden.new_empty(0)
