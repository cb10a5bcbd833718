"""What the detector's maps should say about known scenes, and how far from it they are."""

from collections.abc import Mapping, Sequence

import attrs
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from fluid_emoji.judge.network import CELLS, DetectorMaps
from fluid_emoji.scenes.scene import EmojiScene

NO_COLOR = -1
"""For objects that are not painted in one colour: nothing is learned from them about colours."""

# Spread of the bump around a centre, in cells, as a share of the object's width and height.
_SPREAD = 0.12
_LEAST_SPREAD = 0.5


@attrs.frozen(kw_only=True)
class DetectorTargets:
    """What maps should be: the bumps everywhere, all else at the cells that hold a centre and those around them."""

    center: Float[Tensor, "images rows columns"]
    """1 at centres, falling off around them."""

    cell: Int[Tensor, "3 cells"]
    """Image, row and column of every cell from which an object is read."""

    weight: Float[Tensor, " cells"]
    """1 where the centre is, less around it."""

    kind: Int[Tensor, " cells"]
    color: Int[Tensor, " cells"]
    offset: Float[Tensor, "cells 2"]
    size: Float[Tensor, "cells 2"]


def targets_of(scenes: Sequence[EmojiScene], kinds: Mapping[str, int], colors: Mapping[str, int]) -> DetectorTargets:
    """The targets of a batch, with kinds and colours by their indices."""
    bumps = torch.zeros(len(scenes), CELLS, CELLS)
    middle = torch.arange(CELLS) + 0.5
    cells: dict[tuple[int, int, int], tuple[float, int, int, float, float, float, float]] = {}
    for number, scene in enumerate(scenes):
        for drawn in scene.objects:
            box = drawn.box
            (x, y), (width, height) = [(one * CELLS, two * CELLS) for one, two in (box.center, box.size)]
            spread_x, spread_y = max(_SPREAD * width, _LEAST_SPREAD), max(_SPREAD * height, _LEAST_SPREAD)
            column, row = min(int(x), CELLS - 1), min(int(y), CELLS - 1)
            # The peak is exactly one, wherever in its cell the centre lies.
            across = torch.exp(-((middle - middle[column]) ** 2) / (2 * spread_x**2))
            down = torch.exp(-((middle - middle[row]) ** 2) / (2 * spread_y**2))
            bumps[number] = torch.maximum(bumps[number], down[:, None] * across)
            for near_row in range(max(row - 1, 0), min(row + 2, CELLS)):
                for near_column in range(max(column - 1, 0), min(column + 2, CELLS)):
                    is_center = (near_row, near_column) == (row, column)
                    key = (number, near_row, near_column)
                    if is_center or key not in cells:
                        cells[key] = (
                            1.0 if is_center else 0.2,
                            kinds[drawn.name],
                            colors[drawn.color] if drawn.recolored and drawn.color else NO_COLOR,
                            x - near_column - 0.5,
                            y - near_row - 0.5,
                            width,
                            height,
                        )
    weight, kind, color, *lengths = zip(*cells.values(), strict=True)
    offset_x, offset_y, widths, heights = (torch.tensor(values) for values in lengths)
    return DetectorTargets(
        center=bumps,
        cell=torch.tensor(list(cells)).T,
        weight=torch.tensor(weight),
        kind=torch.tensor(kind),
        color=torch.tensor(color),
        offset=torch.stack([offset_x, offset_y], dim=1),
        size=torch.stack([widths, heights], dim=1).log(),
    )


def detector_loss(maps: DetectorMaps, targets: DetectorTargets) -> Float[Tensor, ""]:
    """How far maps are from their targets: focal loss of the centres (arXiv 1904.07850, equation 1), cross entropy of
    kinds and colours, absolute error of places and sizes; one number per object.
    """
    probability = maps.center.sigmoid()
    is_peak = targets.center == 1
    log_yes, log_no = functional.logsigmoid(maps.center), functional.logsigmoid(-maps.center)
    focal = torch.where(is_peak, (1 - probability) ** 2 * log_yes, (1 - targets.center) ** 4 * probability**2 * log_no)
    num_objects = is_peak.sum()
    image, row, column = targets.cell
    weight = targets.weight
    kinds = functional.cross_entropy(maps.kind[image, :, row, column], targets.kind, reduction="none")
    colors = functional.cross_entropy(
        maps.color[image, :, row, column], targets.color, reduction="none", ignore_index=NO_COLOR
    )
    places = (maps.offset[image, :, row, column] - targets.offset).abs().sum(dim=1)
    sizes = (maps.size[image, :, row, column] - targets.size).abs().sum(dim=1)
    read = (weight * (kinds + 0.5 * colors + 0.3 * places + 0.3 * sizes)).sum()
    return (read - focal.sum()) / num_objects
