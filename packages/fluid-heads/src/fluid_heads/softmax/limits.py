"""Sampling from part of the vocabulary: the k likeliest ids, or the likeliest ones that reach a probability."""

import torch
from jaxtyping import Float
from torch import Tensor


def keep_likeliest(logits: Float[Tensor, "tokens vocabulary"], k: int) -> Float[Tensor, "tokens vocabulary"]:
    """Logits with all but the `k` largest of each row set to minus infinity; those equal to the k-th stay, too.

    A `k` above the vocabulary keeps everything.
    """
    if k >= logits.shape[1]:
        return logits
    kth = logits.topk(k, dim=1).values[:, -1:]
    return logits.masked_fill(logits < kth, -torch.inf)


def keep_nucleus(logits: Float[Tensor, "tokens vocabulary"], p: float) -> Float[Tensor, "tokens vocabulary"]:
    """Logits outside the nucleus (Holtzman et al., arXiv 1904.09751, section 3.1) set to minus infinity.

    The nucleus are the likeliest ids whose probabilities reach `p`, as few as it takes and at least one: an id is out
    if it and all that are less likely have no more than 1 - p together.
    """
    ascending, ids = logits.sort(dim=1, stable=True)
    outside = ascending.softmax(dim=1).cumsum(dim=1) <= 1.0 - p
    outside[:, -1] = False
    return logits.masked_fill(outside.scatter(1, ids, outside), -torch.inf)
