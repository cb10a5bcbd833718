"""Fluid: autoregressive image generation from parts that mix.

Importing this package is cheap: names load the modules behind them when they are first used.
"""

from typing import TYPE_CHECKING

from fluid_core.lazy_names import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
