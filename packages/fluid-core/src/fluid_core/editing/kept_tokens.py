"""Which tokens a variation keeps."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.keyed_random import KeyedRandom
from fluid_core.number_types import is_real_number
from fluid_core.token_space import Grid

KeptTokens = float | np.ndarray | Tensor | Sequence[Sequence[bool]]
"""A share from 0 to less than 1, or True for each token to keep: `rows columns`, or `pictures rows columns`."""


def kept_tokens(
    keep: KeptTokens, grid: Grid, random: KeyedRandom, *, num_pictures: int
) -> Bool[Tensor, "images length"]:
    """True at the tokens to keep, for each row of `random`: the images of each of `num_pictures` pictures in a row.

    A share keeps that many of the tokens, rounded to a whole number and always fewer than all, which ones by chance
    and differently for each image. Raises `InvalidRequestError` for another share, and for a grid of another size or
    type, or one that keeps all.
    """
    if is_real_number(keep):
        share = float(keep)  # type: ignore[arg-type]
        if not 0.0 <= share < 1.0:
            raise InvalidRequestError(
                f"Expected keep as a share of the tokens, from 0 to less than 1, found {keep}. With 1 nothing would "
                "be drawn."
            )
        count = min(round(share * grid.length), grid.length - 1)
        return random.permutation(grid.length) < count
    try:
        chosen = torch.as_tensor(keep)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidRequestError(f"Expected keep as a share or a grid of True and False, found {keep!r}.") from None
    shape = (grid.height, grid.width)
    fits = chosen.ndim in (2, 3) and tuple(chosen.shape[-2:]) == shape
    if chosen.dtype != torch.bool or not fits or (chosen.ndim == 3 and len(chosen) not in (1, num_pictures)):
        raise InvalidRequestError(
            f"Expected keep as a share, or as True and False for each of the {grid.height} x {grid.width} tokens (for "
            f"all pictures, or for each of {num_pictures}), found a grid of "
            f"{str(chosen.dtype).removeprefix('torch.')} with shape {tuple(chosen.shape)}."
        )
    known = chosen.reshape(-1, grid.length)
    if bool(known.all(dim=1).any()):
        raise InvalidRequestError("Expected keep to leave out at least one token of each picture, found all kept.")
    return known.repeat_interleave(random.num_rows // len(known), 0)
