"""From tokens to the rows that enter the transformer: for a canvas with holes, and for a causal sequence."""

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from fluid_core.backbone.position_embedding import PositionEmbedding
from fluid_core.exchange import AttentionPattern, TrainedPermutations
from fluid_core.token_space import TokenSpace


class TokenEmbedding(nn.Module):
    """Embeds what a token holds and where it is.

    Bidirectional models (paper, figure 2b) see the whole canvas in raster order, a learned mask vector at every
    unknown position. Causal models (figure 2a) see a sequence in which row `i` holds token `order[i - 1]`, a learned
    start vector in row 0. Where the permutation varies, row `i` also says which position `order[i]` it is to predict;
    with one fixed permutation that is left out, and raster order is an ordinary GPT.
    """

    def __init__(
        self,
        token_space: TokenSpace,
        width: int,
        attention: AttentionPattern,
        permutations: TrainedPermutations,
    ) -> None:
        super().__init__()
        self.content = token_space.embedding(width)
        self.position = PositionEmbedding(token_space.grid, width)
        self.placeholder = nn.Parameter(torch.empty(width))
        """The mask vector [m] of bidirectional models, the start vector [s] of causal ones."""

        says_target = attention is AttentionPattern.CAUSAL and permutations is TrainedPermutations.ANY
        self.target_position = PositionEmbedding(token_space.grid, width, mirrored=True) if says_target else None
        nn.init.normal_(self.placeholder, std=0.5)

    def canvas(
        self, tokens: Shaped[Tensor, "batch length *token"], known: Bool[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length width"]:
        """Rows of a canvas; what `tokens` holds where `known` is False makes no difference."""
        content = torch.where(known[..., None], self._embedded(tokens), self.placeholder)
        rows: Tensor = content + self.position.table
        return rows

    def sequence(
        self, tokens: Shaped[Tensor, "batch length *token"], order: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length width"]:
        """Rows of the whole causal sequence for tokens in raster order and the order they are predicted in."""
        first = self.start(order[:, :1])
        rows = self.following(_gather(tokens, order[:, :-1]), order[:, :-1], order[:, 1:])
        return torch.cat([first, rows], dim=1)

    def start(self, target: Int[Tensor, "batch rows"]) -> Float[Tensor, "batch rows width"]:
        """Start rows, before any token is known, that predict the positions `target`."""
        rows = self.placeholder.expand(*target.shape, -1)
        return rows if self.target_position is None else rows + self.target_position(target)

    def following(
        self,
        tokens: Shaped[Tensor, "batch rows *token"],
        positions: Int[Tensor, "batch rows"],
        target: Int[Tensor, "batch rows"],
    ) -> Float[Tensor, "batch rows width"]:
        """Rows that hold `tokens`, which stand at `positions`, and predict the positions `target`."""
        rows: Tensor = self._embedded(tokens) + self.position(positions)
        return rows if self.target_position is None else rows + self.target_position(target)

    def _embedded(self, tokens: Tensor) -> Tensor:
        # Vectors stay in single precision when the weights are cast.
        embedded: Tensor = self.content(tokens.to(self.placeholder.dtype) if tokens.is_floating_point() else tokens)
        return embedded


def _gather(tokens: Tensor, positions: Int[Tensor, "batch rows"]) -> Tensor:
    batch = torch.arange(tokens.shape[0], device=tokens.device)[:, None]
    return tokens[batch, positions]
