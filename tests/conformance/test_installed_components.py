"""Every component that is installed, ours and anybody's, found through the catalog as users find it."""

from typing import ClassVar

import pytest

from fluid_core.catalog import installed_components
from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import SamplerSettings
from fluid_core.testing import DatasetSuite, HeadSuite, OrderSuite, TextEncoderSuite, TokenizerSuite

# Iterative heads default to many steps; what is tested here does not depend on their number.
_NUM_HEAD_STEPS = 12


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

    @pytest.fixture(autouse=True, params=installed_components().names("dataset"))
    def _choose(self, request):
        self.component = request.param


def test_built_in_components_are_among_them():
    """The catalog these suites run over holds what the four packages declare: an empty one would pass unnoticed."""
    catalog = installed_components()
    assert not catalog.failures
    assert {"diffusion", "flow", "softmax"} <= set(catalog.names("head"))
    assert {"raster", "random"} <= set(catalog.names("order"))
    assert {"pixel-patches", "patch-codebook"} <= set(catalog.names("tokenizer"))
    assert {"bytes", "t5"} <= set(catalog.names("text-encoder"))
    assert {"shapes", "image-folder"} <= set(catalog.names("dataset"))
