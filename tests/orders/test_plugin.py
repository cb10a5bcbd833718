"""What the package of orders declares."""

import subprocess
import sys

import pytest

from fluid_orders import (
    CausalRandomOrder,
    ConfidenceOrder,
    FixedOrder,
    HaltonOrder,
    RandomOrder,
    RasterOrder,
    plugin,
)

ORDERS = {
    "raster": RasterOrder,
    "random": RandomOrder,
    "causal-random": CausalRandomOrder,
    "halton": HaltonOrder,
    "confidence": ConfidenceOrder,
    "fixed": FixedOrder,
}


def test_declarations_are_valid_and_build():
    """All orders are declared without a problem and build from their default options."""
    declared = plugin.fluid_register_orders()
    assert [component.name for component in declared] == list(ORDERS)
    assert [component.problems() for component in declared] == [[]] * len(ORDERS)
    assert {component.name: type(component.build(component.options())) for component in declared} == ORDERS
    assert [component.name for component in declared if component.needs_confidence] == ["confidence"]


def test_the_plugin_loads_without_torch():
    """Listing components stays fast: neither the package nor its plugin imports torch."""
    check = "import sys, fluid_orders, fluid_orders.plugin; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_public_names_exist():
    """Everything in `__all__` can be had, and nothing else."""
    import fluid_orders

    assert all(getattr(fluid_orders, name) is not None for name in fluid_orders.__all__)
    assert set(fluid_orders.__all__) <= set(dir(fluid_orders))
    with pytest.raises(AttributeError, match="no attribute 'spiral'"):
        _ = fluid_orders.spiral
