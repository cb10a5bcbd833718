"""Token heads: what turns one hidden vector into a distribution over one token (paper, section 3).

`SoftmaxHead` predicts ids of a codebook, `DiffusionHead` predicts continuous vectors. Importing this package
is cheap: names load the modules behind them when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fluid_heads.diffusion.head import DiffusionHead
    from fluid_heads.diffusion.options import DiffusionOptions
    from fluid_heads.diffusion.predecessor import load_predecessor_head
    from fluid_heads.softmax.head import SoftmaxHead
    from fluid_heads.softmax.options import SoftmaxOptions

__version__ = "0.1.0"

_HOMES = {
    "DiffusionHead": "fluid_heads.diffusion.head",
    "DiffusionOptions": "fluid_heads.diffusion.options",
    "SoftmaxHead": "fluid_heads.softmax.head",
    "SoftmaxOptions": "fluid_heads.softmax.options",
    "load_predecessor_head": "fluid_heads.diffusion.predecessor",
}

__all__ = ["DiffusionHead", "DiffusionOptions", "SoftmaxHead", "SoftmaxOptions", "load_predecessor_head"]


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use."""
    if name not in _HOMES:
        raise AttributeError(f"module 'fluid_heads' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
