"""Plans of small models, and the same models for real."""

from collections.abc import Callable
from typing import Any

import attrs
import pytest
import torch

from fluid_core import FluidConfig, FluidModel
from fluid_core.catalog import installed_components
from fluid_core.configuration import BackboneConfig, ComponentChoice
from fluid_core.model import TrainingBatch

PATCHES = {"image_size": 64, "patch_size": 8}
TEXT_LENGTH = 32


@pytest.fixture(params=[(t, o) for t in ("continuous", "discrete") for o in ("random", "raster")], ids="-".join)
def tokens_and_order(request) -> tuple[str, str]:
    """The four models of the paper: kind of token, and order."""
    return request.param


@pytest.fixture(scope="session")
def medium_config(small_config) -> Callable[..., FluidConfig]:
    """A function that makes configurations of 64 tokens, large enough for products of matrices to matter."""

    def make(tokens: str = "continuous", order: str = "random", **others: Any) -> FluidConfig:
        parts = {
            "tokenizer": ComponentChoice(
                name="pixel-patches" if tokens == "continuous" else "patch-codebook",
                options=PATCHES if tokens == "continuous" else {**PATCHES, "vocabulary_size": 300},
            ),
            "head": ComponentChoice(
                name="diffusion" if tokens == "continuous" else "softmax",
                options={"depth": 2, "timesteps_per_token": 3} if tokens == "continuous" else {},
            ),
            "text_encoder": ComponentChoice(name="bytes", options={"width": 64, "max_length": TEXT_LENGTH}),
            "backbone": BackboneConfig(size="tiny"),
        }
        return small_config(tokens, order, **{**parts, **others})

    return make


@pytest.fixture(scope="session")
def real_batch() -> Callable[..., tuple[FluidModel, TrainingBatch]]:
    """A function that builds the model of such a configuration for real, with a batch of captions of full length."""

    def make(config: FluidConfig, num_images: int) -> tuple[FluidModel, TrainingBatch]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = FluidModel.from_config(config)
            images = torch.rand(num_images, 3, 64, 64) * 2 - 1
        if hasattr(model.tokenizer, "fit"):
            model.tokenizer.fit(images[:8], seed=0)
        captions = ["x" * (TEXT_LENGTH - 2)] * num_images
        return model, model.prepare(images, captions, generator=torch.Generator().manual_seed(1))

    return make


@pytest.fixture(scope="session")
def example_choice() -> Callable[..., ComponentChoice]:
    """A function that writes a small example of a component with weights to a folder, and names it."""

    def make(kind: str, name: str, folder: Any) -> ComponentChoice:
        component = installed_components().find(kind, name).component
        options = attrs.asdict(component.example(folder), filter=lambda _, value: value is not None)
        return ComponentChoice(name=name, options=options)

    return make


@pytest.fixture
def no_network(monkeypatch) -> None:
    """Whoever opens a connection fails."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a plan opened a connection")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
