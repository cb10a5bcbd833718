"""The fused sampler of the softmax head on a CUDA device: kernels from hidden vectors to ids."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluid_core.exchange import SamplerBackend, SamplingRequest
from fluid_heads.kernels.vocabulary_sampling import draw_from_vocabulary
from fluid_heads.request_checks import check_request


class CudaSoftmaxSampler:
    """Draws what the reference `SoftmaxSampler` draws from the whole vocabulary, and never holds its logits.

    Weights keep their type and must not change while the sampler is in use. From the same random numbers the ids are
    those of the reference, unless two ids are tied within the rounding of float32. Needs Triton.
    """

    backend = SamplerBackend.FUSED
    num_steps = 1

    def __init__(self, weight: Float[Tensor, "vocabulary width"], bias: Float[Tensor, "vocabulary"]) -> None:
        self._weight, self._bias = weight.detach(), bias.detach()

    @torch.no_grad()
    def __call__(self, condition: Float[Tensor, "tokens width"], request: SamplingRequest) -> Int[Tensor, "tokens"]:
        """One id for every hidden vector. Raises `InvalidRequestError` for a request that does not fit."""
        check_request(condition, request, width=self._weight.shape[1])
        return draw_from_vocabulary(
            condition,
            self._weight,
            self._bias,
            random=request.random,
            temperature=request.temperature,
            guidance=request.guidance,
        )
