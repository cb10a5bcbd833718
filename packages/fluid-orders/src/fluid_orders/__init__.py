"""Orders for Fluid: which tokens of an image are predicted at which step.

Importing this package is cheap: names load the modules behind them when they are first used.
"""

from typing import TYPE_CHECKING

from fluid_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from fluid_orders.causal_random import CausalRandomOrder
    from fluid_orders.confidence import ConfidenceOrder
    from fluid_orders.fixed import FixedOrder
    from fluid_orders.halton import HaltonOrder
    from fluid_orders.options import (
        CausalRandomOrderOptions,
        ConfidenceOrderOptions,
        FixedOrderOptions,
        HaltonOrderOptions,
        RandomOrderOptions,
        RasterOrderOptions,
    )
    from fluid_orders.random_order import RandomOrder
    from fluid_orders.raster import RasterOrder
    from fluid_orders.step_sizes import cosine_step_sizes, step_sizes_on_curve

__version__ = "0.1.0"

_HOMES = {
    "CausalRandomOrder": "fluid_orders.causal_random",
    "CausalRandomOrderOptions": "fluid_orders.options",
    "ConfidenceOrder": "fluid_orders.confidence",
    "ConfidenceOrderOptions": "fluid_orders.options",
    "FixedOrder": "fluid_orders.fixed",
    "FixedOrderOptions": "fluid_orders.options",
    "HaltonOrder": "fluid_orders.halton",
    "HaltonOrderOptions": "fluid_orders.options",
    "RandomOrder": "fluid_orders.random_order",
    "RandomOrderOptions": "fluid_orders.options",
    "RasterOrder": "fluid_orders.raster",
    "RasterOrderOptions": "fluid_orders.options",
    "cosine_step_sizes": "fluid_orders.step_sizes",
    "step_sizes_on_curve": "fluid_orders.step_sizes",
}

__all__ = [
    "CausalRandomOrder",
    "CausalRandomOrderOptions",
    "ConfidenceOrder",
    "ConfidenceOrderOptions",
    "FixedOrder",
    "FixedOrderOptions",
    "HaltonOrder",
    "HaltonOrderOptions",
    "RandomOrder",
    "RandomOrderOptions",
    "RasterOrder",
    "RasterOrderOptions",
    "cosine_step_sizes",
    "step_sizes_on_curve",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
