"""Feature networks without published weights: random convolutions, and TorchScript files."""

import warnings

import attrs
import pytest
import torch

from fluid_core.catalog import installed_components
from fluid_core.errors import CheckpointError, ConfigurationError, InvalidComponentError, InvalidRequestError
from fluid_core.evaluation.feature_networks.options import RandomConvolutionsOptions, TorchScriptOptions
from fluid_core.evaluation.feature_networks.random_convolutions import RandomConvolutions
from fluid_core.evaluation.feature_networks.torchscript import TorchScriptNetwork, example_torchscript_options


def pictures(count):
    """Noise in [-1, 1]."""
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def saved(folder, module):
    """Options for a module traced to a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.trace(module, torch.zeros(1, 3, 32, 32)).save(str(folder / "network.pt"))
    return TorchScriptOptions(path=str(folder / "network.pt"), description="for a test", width=3)


def test_random_convolutions_follow_their_seed():
    """The same seed has the same weights in every process, and another has others; the global generator is left."""
    before = torch.get_rng_state()
    first, again, other = (RandomConvolutions(RandomConvolutionsOptions(seed=seed)) for seed in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.features(pictures(2)), again.features(pictures(2)))
    assert not torch.allclose(first.features(pictures(2)), other.features(pictures(2)), atol=1e-3)
    assert first.name == "random convolutions (32 + 64 + 128 channels, seed 3, untrained)"


def test_random_convolutions_have_known_weights():
    """A figure measured elsewhere can be measured again: the first weight is what it always was."""
    weight = RandomConvolutions().layers[0].weight
    expected = torch.randn(32, 3, 3, 3, generator=torch.Generator().manual_seed(0)) * (2.0 / 27) ** 0.5
    assert torch.equal(weight, expected)


def test_pictures_are_checked():
    """Bytes in place of [-1, 1], and pictures too small to describe, are refused."""
    network = RandomConvolutions()
    with pytest.raises(InvalidRequestError, match=r"in \[-1, 1\].*found values from 0 to 255"):
        network.features(torch.linspace(0, 255, 2 * 3 * 32 * 32).view(2, 3, 32, 32))
    with pytest.raises(InvalidRequestError, match="at least 32 pixels"):
        network.features(torch.zeros(1, 3, 16, 64))


def test_a_torchscript_file_is_called_with_scaled_pictures(tmp_path):
    """The network sees squares of the size and range it was made for."""
    options = saved(tmp_path, torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()))
    images = torch.full((2, 3, 48, 64), -0.5)
    for value_range, expected in (("minus-one-to-one", -0.5), ("zero-to-one", 0.25), ("zero-to-255", 63.75)):
        network = TorchScriptNetwork(attrs.evolve(options, value_range=value_range, image_size=32))
        torch.testing.assert_close(network.features(images), torch.full((2, 3), expected), rtol=1e-4, atol=1e-4)
    assert network.name == "for a test"


def test_features_of_another_shape_are_refused(tmp_path):
    """Trailing axes of one pixel are taken off; whatever else does not fit is named."""
    pooled = TorchScriptNetwork(saved(tmp_path, torch.nn.AdaptiveAvgPool2d(1)))
    assert pooled.features(pictures(2)).shape == (2, 3)
    with pytest.raises(InvalidComponentError, match=r"shape \(2, 5\), found a tensor of shape \(2, 3\)"):
        TorchScriptNetwork(attrs.evolve(pooled.options, width=5)).features(pictures(2))
    with pytest.raises(InvalidComponentError, match=r"found a tensor of shape \(2, 3, 32, 32\)"):
        TorchScriptNetwork(saved(tmp_path, torch.nn.ReLU())).features(pictures(2))


def test_a_file_without_maps_says_so(tmp_path):
    """Features alone serve distances; a perceptual loss needs more."""
    network = TorchScriptNetwork(saved(tmp_path, torch.nn.AdaptiveAvgPool2d(1)))
    with pytest.raises(InvalidRequestError, match="no method 'maps'"):
        network.maps(pictures(1))
    (tmp_path / "example").mkdir()
    with_maps = TorchScriptNetwork(example_torchscript_options(tmp_path / "example"))
    assert [tuple(one.shape) for one in with_maps.maps(pictures(2))] == [(2, 3, 16, 16), (2, 3, 4, 4)]


def test_files_that_are_no_torchscript_are_refused(tmp_path):
    """A missing file and a damaged one are told apart."""
    options = TorchScriptOptions(path=str(tmp_path / "network.pt"), description="none", width=3)
    with pytest.raises(CheckpointError, match="found none"):
        TorchScriptNetwork(options)
    (tmp_path / "network.pt").write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="can not be loaded"):
        TorchScriptNetwork(options)


def test_options_are_checked_with_their_place():
    """Empty lists and blank names are refused where a configuration is read."""
    for name, options in (("random-convolutions", {"channels": []}), ("torchscript", {"path": "x", "width": 3})):
        with pytest.raises(ConfigurationError):
            installed_components().build("feature-network", name, options)
