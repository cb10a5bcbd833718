"""Orders for Fluid: which tokens of an image are predicted at which step.

Importing this package is cheap: names load the modules behind them when they are first used.
"""

from typing import TYPE_CHECKING

from fluid_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from fluid_orders.options import RandomOrderOptions, RasterOrderOptions
    from fluid_orders.random_order import RandomOrder
    from fluid_orders.raster import RasterOrder
    from fluid_orders.step_sizes import cosine_step_sizes

__version__ = "0.1.0"

_HOMES = {
    "RandomOrder": "fluid_orders.random_order",
    "RandomOrderOptions": "fluid_orders.options",
    "RasterOrder": "fluid_orders.raster",
    "RasterOrderOptions": "fluid_orders.options",
    "cosine_step_sizes": "fluid_orders.step_sizes",
}

__all__ = [
    "RandomOrder",
    "RandomOrderOptions",
    "RasterOrder",
    "RasterOrderOptions",
    "cosine_step_sizes",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
