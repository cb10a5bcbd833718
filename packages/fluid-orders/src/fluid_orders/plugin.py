"""What this package offers to the catalog. The modules with torch load when a component is built."""

from typing import TYPE_CHECKING

from fluid_core.components import OrderComponent
from fluid_core.hookspecs import hookimpl
from fluid_orders.options import (
    CausalRandomOrderOptions,
    ConfidenceOrderOptions,
    FixedOrderOptions,
    HaltonOrderOptions,
    RandomOrderOptions,
    RasterOrderOptions,
)

if TYPE_CHECKING:
    from fluid_orders.causal_random import CausalRandomOrder
    from fluid_orders.confidence import ConfidenceOrder
    from fluid_orders.fixed import FixedOrder
    from fluid_orders.halton import HaltonOrder
    from fluid_orders.random_order import RandomOrder
    from fluid_orders.raster import RasterOrder


def _build_raster(options: RasterOrderOptions) -> "RasterOrder":
    from fluid_orders.raster import RasterOrder

    return RasterOrder(options)


def _build_random(options: RandomOrderOptions) -> "RandomOrder":
    from fluid_orders.random_order import RandomOrder

    return RandomOrder(options)


def _build_causal_random(options: CausalRandomOrderOptions) -> "CausalRandomOrder":
    from fluid_orders.causal_random import CausalRandomOrder

    return CausalRandomOrder(options)


def _build_halton(options: HaltonOrderOptions) -> "HaltonOrder":
    from fluid_orders.halton import HaltonOrder

    return HaltonOrder(options)


def _build_confidence(options: ConfidenceOrderOptions) -> "ConfidenceOrder":
    from fluid_orders.confidence import ConfidenceOrder

    return ConfidenceOrder(options)


def _build_fixed(options: FixedOrderOptions) -> "FixedOrder":
    from fluid_orders.fixed import FixedOrder

    return FixedOrder(options)


@hookimpl
def fluid_register_orders() -> tuple[OrderComponent, ...]:
    """The orders of the paper (figure 2), raster and random, and those of the field that came before and after it."""
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
        OrderComponent(
            name="causal-random",
            summary="Random positions with causal attention and a key/value cache, many tokens a step",
            options=CausalRandomOrderOptions,
            build=_build_causal_random,
        ),
        OrderComponent(
            name="halton",
            summary="Positions spread evenly over the picture, with bidirectional attention",
            options=HaltonOrderOptions,
            build=_build_halton,
        ),
        OrderComponent(
            name="confidence",
            summary="The tokens that the head is surest of first, with bidirectional attention",
            options=ConfidenceOrderOptions,
            build=_build_confidence,
            needs_confidence=True,
        ),
        OrderComponent(
            name="fixed",
            summary="A path of your own, such as from the centre outwards, with bidirectional attention",
            options=FixedOrderOptions,
            build=_build_fixed,
        ),
    )
