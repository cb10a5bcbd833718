"""Token heads: what turns one hidden vector into a distribution over one token (paper, section 3).

`SoftmaxHead` predicts ids of a codebook, `DiffusionHead` and `FlowHead` predict continuous vectors. Importing this
package is cheap: names load the modules behind them when they are first used.
"""

from typing import TYPE_CHECKING

from fluid_core.lazy_names import lazy_names

if TYPE_CHECKING:
    from fluid_heads.diffusion.head import DiffusionHead
    from fluid_heads.diffusion.options import DiffusionOptions
    from fluid_heads.diffusion.predecessor import load_predecessor_head
    from fluid_heads.flow.head import FlowHead
    from fluid_heads.flow.options import FlowOptions
    from fluid_heads.softmax.head import SoftmaxHead
    from fluid_heads.softmax.options import SoftmaxOptions

__version__ = "0.1.0"

_HOMES = {
    "DiffusionHead": "fluid_heads.diffusion.head",
    "DiffusionOptions": "fluid_heads.diffusion.options",
    "FlowHead": "fluid_heads.flow.head",
    "FlowOptions": "fluid_heads.flow.options",
    "SoftmaxHead": "fluid_heads.softmax.head",
    "SoftmaxOptions": "fluid_heads.softmax.options",
    "load_predecessor_head": "fluid_heads.diffusion.predecessor",
}

__all__ = [
    "DiffusionHead",
    "DiffusionOptions",
    "FlowHead",
    "FlowOptions",
    "SoftmaxHead",
    "SoftmaxOptions",
    "load_predecessor_head",
]

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
