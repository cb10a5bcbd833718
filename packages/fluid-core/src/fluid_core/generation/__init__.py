"""Generation: one sampling loop, for every order and head.

Importing this package is cheap: names load the modules behind them when they are first used.
"""

from typing import TYPE_CHECKING

from fluid_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from fluid_core.generation.loop import generate
    from fluid_core.generation.order_check import check_order
    from fluid_core.generation.settings import GenerationProgress, GenerationSettings

_HOMES = {
    "GenerationProgress": "fluid_core.generation.settings",
    "GenerationSettings": "fluid_core.generation.settings",
    "check_order": "fluid_core.generation.order_check",
    "generate": "fluid_core.generation.loop",
}

__all__ = ["GenerationProgress", "GenerationSettings", "check_order", "generate"]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
