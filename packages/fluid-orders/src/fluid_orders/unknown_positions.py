"""The mask of unknown positions that a generation starts from: checked, and put in order."""

import math

from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.token_space import Grid


def count_unknown(unknown: Bool[Tensor, "batch length"], grid: Grid) -> int:
    """The number of unknown positions, which all images of a batch share.

    Raises `InvalidRequestError` if the mask does not fit the grid, or if the images have different counts: a
    step predicts the same number of tokens for each.
    """
    if unknown.shape[1] != grid.length:
        raise InvalidRequestError(
            f"Expected a mask over the {grid.length} positions of a grid of {grid.height} x {grid.width} "
            f"tokens, found one over {unknown.shape[1]} positions. Make the mask for the model's own grid."
        )
    counts = sorted(set(unknown.sum(dim=1).tolist()))
    if len(counts) != 1:
        raise InvalidRequestError(
            f"Expected the same number of unknown positions in every image of the batch, found {counts}. "
            "Generate images with different numbers of unknown positions in separate batches."
        )
    return int(counts[0])


def unknown_by_rank(
    unknown: Bool[Tensor, "batch length"], ranks: Shaped[Tensor, "#batch length"], num_unknown: int
) -> Int[Tensor, "batch unknown"]:
    """The unknown positions of each image, from the lowest rank to the highest; equal ranks in raster order."""
    ranks = ranks.to(unknown.device).expand_as(unknown).float()
    return ranks.masked_fill(~unknown, math.inf).argsort(dim=1, stable=True)[:, :num_unknown]
