"""Which tokens a variation keeps."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import Grid

KeptTokens = float | np.ndarray | Tensor | Sequence[Sequence[bool]]
"""A share from 0 to less than 1, or True for each token to keep: `rows columns`, or `pictures rows columns`."""


def kept_tokens(keep: KeptTokens, grid: Grid, random: KeyedRandom) -> Bool[Tensor, "images length"]:
    """True at the tokens to keep, for each row of `random`.

    A share keeps that many of the tokens, rounded to a whole number and always fewer than all, which ones by chance
    and differently for each image. Raises `InvalidRequestError` for another share, and for a grid of another size or
    type, or one that keeps all.
    """
    if isinstance(keep, int | float) and not isinstance(keep, bool):
        if not 0.0 <= keep < 1.0:
            raise InvalidRequestError(
                f"Expected keep as a share of the tokens, from 0 to less than 1, found {keep}. With 1 nothing would "
                "be drawn."
            )
        count = min(round(keep * grid.length), grid.length - 1)
        return random.permutation(grid.length) < count
    try:
        chosen = torch.as_tensor(keep)
    except (TypeError, ValueError, RuntimeError):
        raise InvalidRequestError(f"Expected keep as a share or a grid of True and False, found {keep!r}.") from None
    num_images, shape = random.num_rows, (grid.height, grid.width)
    fits = chosen.ndim in (2, 3) and tuple(chosen.shape[-2:]) == shape
    if chosen.dtype != torch.bool or not fits or (chosen.ndim == 3 and num_images % max(len(chosen), 1)):
        raise InvalidRequestError(
            f"Expected keep as a share, or as True and False for each of the {grid.height} x {grid.width} tokens (for "
            f"all pictures, or for each), found a grid of {str(chosen.dtype).removeprefix('torch.')} with shape "
            f"{tuple(chosen.shape)}."
        )
    known = chosen.reshape(-1, grid.length)
    if bool(known.all(dim=1).any()):
        raise InvalidRequestError("Expected keep to leave out at least one token of each picture, found all kept.")
    return known.repeat_interleave(num_images // len(known), 0)
