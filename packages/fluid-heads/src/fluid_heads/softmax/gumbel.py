"""Gumbel noise from uniform numbers, the same bits in every sampler."""

from jaxtyping import Float
from torch import Tensor

SMALLEST_UNIFORM = 2.0**-25
"""What stands for a uniform number of 0: the middle of the interval that `KeyedRandom` rounds to 0.

The noise of 0 itself would be minus infinity, and an id of probability 1 would lose.
"""


def gumbel_(uniform: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """-log(-log(u)) of numbers in [0, 1), from -2.9 to 16.7, written over them."""
    return uniform.clamp_(min=SMALLEST_UNIFORM).log_().neg_().log_().neg_()
