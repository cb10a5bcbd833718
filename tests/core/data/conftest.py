"""Small caches of tokens."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from fluid_core import FluidConfig
from fluid_core.configuration import ComponentChoice, TrainingConfig
from fluid_core.data.token_cache.builder import CacheBuilder
from fluid_core.data.token_cache.options import CacheBuildOptions
from fluid_core.data.token_cache.progress import CacheProgress
from fluid_core.training.cache_building import cache_builder

SHAPES = {"num_examples": 30, "num_validation_examples": 10}


@pytest.fixture(scope="session")
def cache_config(small_config) -> Callable[..., FluidConfig]:
    """A function that makes a configuration to build caches with; keywords are fields of `FluidConfig`."""

    def make(tokens: str = "continuous", **others: Any) -> FluidConfig:
        training = TrainingConfig(num_steps=4, batch_size=4, num_fit_images=12, num_validation_images=4, device="cpu")
        return small_config(
            tokens, **{"data": ComponentChoice(name="shapes", options=SHAPES), "training": training, **others}
        )

    return make


@pytest.fixture(scope="session")
def make_builder() -> Callable[..., CacheBuilder]:
    """A function that makes a builder whose progress goes nowhere; keywords are fields of `CacheBuildOptions`."""

    def make(config: FluidConfig, folder: Any, *, validation: bool | None = None, **options: Any) -> CacheBuilder:
        return cache_builder(
            config,
            folder,
            CacheBuildOptions(**{"batch_size": 4, **options}),
            device="cpu",
            validation=validation,
            progress=CacheProgress(Console(file=io.StringIO())),
        )

    return make
