"""Which pixels a token stands for, and the other way round."""

import torch
from jaxtyping import Bool
from torch import Tensor
from torch.nn import functional

from fluid_core.token_space import Grid


def tokens_touched(pixels: Bool[Tensor, "pictures height width"], grid: Grid) -> Bool[Tensor, "pictures length"]:
    """True at the tokens, in raster order, in whose area at least one of `pixels` is True."""
    touched = functional.adaptive_max_pool2d(pixels[:, None].float(), (grid.height, grid.width))
    return touched.flatten(1) > 0.5


def pixels_of_tokens(
    tokens: Bool[Tensor, "pictures length"], grid: Grid, image_size: tuple[int, int]
) -> Bool[Tensor, "pictures height width"]:
    """True at the pixels that lie in the area of one of `tokens`; `image_size` is (height, width)."""
    height, width = image_size
    rows = torch.arange(height, device=tokens.device) * grid.height // height
    columns = torch.arange(width, device=tokens.device) * grid.width // width
    return tokens.view(-1, grid.height, grid.width)[:, rows[:, None], columns]
