"""What every sampler of this package refuses, in one place, so that all of them say it alike."""

import math

from jaxtyping import Float
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import SamplingRequest


def check_request(condition: Float[Tensor, "tokens width"], request: SamplingRequest, *, width: int) -> None:
    """Raise `InvalidRequestError` if the request does not fit the hidden vectors, or those not the head.

    `width` is the one the head was built for. Values of tensors are not looked at: that would wait for the
    device.
    """
    num_tokens = condition.shape[0]
    if condition.shape[1] != width:
        raise InvalidRequestError(
            f"Expected hidden vectors of width {width}, found {condition.shape[1]}. "
            "The head was built for another backbone."
        )
    if not (math.isfinite(request.temperature) and request.temperature >= 0.0):
        raise InvalidRequestError(
            f"Expected a temperature of 0 or more, found {request.temperature}. "
            "1 samples the learned distribution, less makes samples more alike; 0 draws nothing but the noise that a "
            "diffusion head starts from."
        )
    if request.random.num_rows != num_tokens:
        raise InvalidRequestError(
            f"Expected a random source with one row per token, found {request.random.num_rows} rows "
            f"for {num_tokens} tokens. Make one with a key for every token."
        )
    guidance = request.guidance
    if guidance is not None and (
        guidance.negative.shape != condition.shape or tuple(guidance.scale.shape) != (num_tokens,)
    ):
        raise InvalidRequestError(
            f"Expected guidance with negative vectors of shape {tuple(condition.shape)} and one scale per token, "
            f"found shapes {tuple(guidance.negative.shape)} and {tuple(guidance.scale.shape)}."
        )
