"""What this package offers to the catalog. The modules with torch load when a component is built."""

from typing import TYPE_CHECKING

from fluid_core.components import OrderComponent
from fluid_core.hookspecs import hookimpl
from fluid_orders.options import RandomOrderOptions, RasterOrderOptions

if TYPE_CHECKING:
    from fluid_orders.random_order import RandomOrder
    from fluid_orders.raster import RasterOrder


def _build_raster(options: RasterOrderOptions) -> "RasterOrder":
    from fluid_orders.raster import RasterOrder

    return RasterOrder(options)


def _build_random(options: RandomOrderOptions) -> "RandomOrder":
    from fluid_orders.random_order import RandomOrder

    return RandomOrder(options)


@hookimpl
def fluid_register_orders() -> tuple[OrderComponent, ...]:
    """The orders of the paper (figure 2): raster with causal, random with bidirectional attention."""
    return (
        OrderComponent(
            name="raster",
            summary="Row by row with causal attention, one token a step, as a language model writes",
            options=RasterOrderOptions,
            build=_build_raster,
        ),
        OrderComponent(
            name="random",
            summary="Random positions with bidirectional attention, many tokens a step on a cosine schedule",
            options=RandomOrderOptions,
            build=_build_random,
        ),
    )
