"""Checks of the mask of unknown positions that a generation starts from."""

from jaxtyping import Bool
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
