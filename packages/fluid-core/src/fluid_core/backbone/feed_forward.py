"""The MLP of a transformer block."""

import torch.nn.functional as F  # noqa: N812
from jaxtyping import Float
from torch import Tensor, nn

from fluid_core.backbone.linear import Linear


class FeedForward(nn.Module):
    """Linear, GELU, linear, applied to every row on its own."""

    def __init__(self, width: int, hidden_width: int) -> None:
        super().__init__()
        self.hidden = Linear(width, hidden_width)
        self.output = Linear(hidden_width, width)

    def forward(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """Rows of the same width."""
        transformed: Tensor = self.output(F.gelu(self.hidden(x), approximate="tanh"))
        return transformed
