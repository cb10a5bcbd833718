"""A small convolutional detector: for every 4 x 4 pixels of a picture, whether an object is centred there and which.

After "Objects as Points" (Zhou, Wang and Krähenbühl, arXiv 1904.07850): peaks of one map are the centres of objects,
and what there is to know about an object is read off the other maps at its peak.
"""

import attrs
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

SIDE = 64
"""Pixels a side of the pictures the network reads."""

STRIDE = 4
"""Pixels a side of one cell of its maps."""

CELLS = SIDE // STRIDE
"""Cells a side of its maps."""


@attrs.frozen(kw_only=True)
class DetectorMaps:
    """What the network says about each cell, as logits and as numbers."""

    center: Float[Tensor, "images rows columns"]
    """Logit of an object being centred here."""

    kind: Float[Tensor, "images kinds rows columns"]
    """Logits of the kinds of objects."""

    color: Float[Tensor, "images colors rows columns"]
    """Logits of the colours, for objects that are painted in one."""

    offset: Float[Tensor, "images 2 rows columns"]
    """The object's centre (x, y) seen from the centre of the cell, in cells."""

    size: Float[Tensor, "images 2 rows columns"]
    """Logarithm of the object's width and height in cells."""


class DetectorNetwork(nn.Module):
    """Maps of 16 x 16 cells for pictures of 64 x 64 pixels with values in [-1, 1]."""

    def __init__(self, num_kinds: int, num_colors: int) -> None:
        super().__init__()
        self.num_kinds = num_kinds
        self.num_colors = num_colors
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), _convolution(12, 64, stride=2))
        self.fine = _Residual(64)
        self.to_middle = _convolution(64, 128, stride=2)
        self.middle = _Residual(128)
        self.to_coarse = _convolution(128, 112, stride=2)
        self.coarse = _Residual(112)
        self.from_coarse = nn.Conv2d(112, 128, 1)
        self.from_middle = nn.Conv2d(128, 80, 1)
        self.from_fine = nn.Conv2d(64, 80, 1)
        self.joined = _convolution(80, 112)
        self.read = nn.Conv2d(112, 5 + num_colors + num_kinds, 1)

    def forward(self, images: Float[Tensor, "images 3 64 64"]) -> DetectorMaps:
        """The maps of a batch of pictures."""
        fine = self.fine(self.stem(images))
        middle = self.middle(self.to_middle(fine))
        coarse = self.coarse(self.to_coarse(middle))
        middle = middle + _doubled(self.from_coarse(coarse))
        maps = self.read(self.joined(self.from_fine(fine) + _doubled(self.from_middle(middle))))
        center, offset, size, color, kind = maps.split([1, 2, 2, self.num_colors, self.num_kinds], dim=1)
        return DetectorMaps(center=center[:, 0], kind=kind, color=color, offset=offset, size=size)


class _Residual(nn.Module):
    """Two convolutions beside which the input goes on."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _convolution(width, width)
        self.second = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))

    def forward(self, features: Tensor) -> Tensor:
        return functional.relu(features + self.second(self.first(features)))


def _convolution(width_in: int, width_out: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width_out, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(width_out),
        nn.ReLU(),
    )


def _doubled(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2.0, mode="nearest")
