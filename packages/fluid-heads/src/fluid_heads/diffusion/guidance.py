"""Classifier-free guidance on the predicted noise."""

from jaxtyping import Float
from torch import Tensor

# Keeps 0 / 0 out of a prediction without any spread, such as the zeros of a fresh network.
_SMALLEST_DEVIATION = 1e-12


def guided_noise(
    conditional: Float[Tensor, "tokens channels"],
    negative: Float[Tensor, "tokens channels"],
    scale: Float[Tensor, "tokens"],
) -> Float[Tensor, "tokens channels"]:
    """From the negative prediction towards the conditional one and, with a scale above 1, beyond it."""
    return negative + scale.float()[:, None] * (conditional - negative)


def rescaled_noise(
    guided: Float[Tensor, "tokens channels"], conditional: Float[Tensor, "tokens channels"], share: float
) -> Float[Tensor, "tokens channels"]:
    """Guided noise with part of its excess spread taken back (Lin et al., arXiv 2305.08891, section 3.4).

    Guidance widens the prediction. Its standard deviation over the channels of a token is brought to that of the
    conditional prediction, and the result mixed with the guided noise: `share` 0 changes nothing, 1 takes the
    rescaled noise alone. Needs two channels or more.
    """
    deviation = conditional.std(dim=1, keepdim=True)
    guided_deviation = guided.std(dim=1, keepdim=True).clamp(min=_SMALLEST_DEVIATION)
    return share * (guided * (deviation / guided_deviation)) + (1.0 - share) * guided
