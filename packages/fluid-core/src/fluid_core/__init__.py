"""Fluid: autoregressive image generation from parts that mix.

Importing this package is cheap: names load the modules behind them when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluid_core.catalog import ComponentCatalog
    from fluid_core.configuration import FluidConfig, load_config
    from fluid_core.exchange import AttentionPattern, TrainedPermutations
    from fluid_core.keyed_random import KeyedRandom
    from fluid_core.model import FluidModel
    from fluid_core.pipeline import FluidPipeline
    from fluid_core.token_space import ContinuousTokens, DiscreteTokens, Grid, TokenSpace
    from fluid_core.training.trainer import Trainer

__version__ = "0.1.0"

_HOMES = {
    "AttentionPattern": "fluid_core.exchange",
    "ComponentCatalog": "fluid_core.catalog",
    "ContinuousTokens": "fluid_core.token_space",
    "DiscreteTokens": "fluid_core.token_space",
    "FluidConfig": "fluid_core.configuration",
    "FluidModel": "fluid_core.model",
    "FluidPipeline": "fluid_core.pipeline",
    "Grid": "fluid_core.token_space",
    "KeyedRandom": "fluid_core.keyed_random",
    "TokenSpace": "fluid_core.token_space",
    "TrainedPermutations": "fluid_core.exchange",
    "Trainer": "fluid_core.training.trainer",
    "load_config": "fluid_core.configuration",
}

__all__ = [
    "AttentionPattern",
    "ComponentCatalog",
    "ContinuousTokens",
    "DiscreteTokens",
    "FluidConfig",
    "FluidModel",
    "FluidPipeline",
    "Grid",
    "KeyedRandom",
    "TokenSpace",
    "TrainedPermutations",
    "Trainer",
    "load_config",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fluid_core' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
