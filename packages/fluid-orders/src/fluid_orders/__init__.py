"""Orders for Fluid: which tokens of an image are predicted at which step.

Importing this package is cheap: names load the modules behind them when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fluid_orders' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
