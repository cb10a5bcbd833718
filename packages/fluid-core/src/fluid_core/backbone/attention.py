"""Self-attention with an optional cache, and cross-attention to the text.

Shapes: `batch`, `rows` (positions of the sequence that are computed), `text_length`, and `width = heads * head_width`.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from jaxtyping import Bool, Float
from torch import Tensor, nn

from fluid_core.backbone.key_value_cache import KeyValueCache


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself.

    The four ways to call it are four rules of who sees whom. `extend` and `query` give exactly what `causal` gives for
    the same rows of the whole sequence, at the cost of the new rows alone.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def bidirectional(
        self, x: Float[Tensor, "batch rows width"], mask: Bool[Tensor, "batch 1 1 rows"] | None = None
    ) -> Float[Tensor, "batch rows width"]:
        """Every row sees every row, or those where `mask` is True."""
        queries, keys, values = self._project(x)
        return self._join(F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask))

    def causal(self, x: Float[Tensor, "batch rows width"]) -> Float[Tensor, "batch rows width"]:
        """Every row sees itself and the rows before it."""
        queries, keys, values = self._project(x)
        return self._join(F.scaled_dot_product_attention(queries, keys, values, is_causal=True))

    def extend(self, x: Float[Tensor, "batch rows width"], cache: KeyValueCache) -> Float[Tensor, "batch rows width"]:
        """The next rows of a causal sequence; their keys and values stay in the cache."""
        queries, keys, values = self._project(x)
        num_before, num_rows = cache.length, x.shape[1]
        cache.append(keys, values)
        mask = None
        if num_rows > 1:
            sees = torch.ones(num_rows, num_before + num_rows, dtype=torch.bool, device=x.device)
            mask = sees.tril(diagonal=num_before)
        return self._join(F.scaled_dot_product_attention(queries, cache.keys, cache.values, attn_mask=mask))

    def query(self, x: Float[Tensor, "batch rows width"], cache: KeyValueCache) -> Float[Tensor, "batch rows width"]:
        """Several candidates for the NEXT row: each sees the cache and itself, none is kept."""
        queries, keys, values = self._project(x)
        num_rows = x.shape[1]
        own = torch.eye(num_rows, dtype=torch.bool, device=x.device)
        mask = torch.cat([own.new_ones(num_rows, cache.length), own], dim=1)
        keys = torch.cat([cache.keys, keys], dim=2)
        values = torch.cat([cache.values, values], dim=2)
        return self._join(F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        split = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        # Not by index: the gradient of each would fill a tensor of all three.
        queries, keys, values = split.unbind(0)
        return queries, keys, values

    def _join(self, heads: Tensor) -> Tensor:
        joined: Tensor = self.output(heads.transpose(1, 2).flatten(2))
        return joined


class TextKeysValues(NamedTuple):
    """Keys and values of the text for one layer, and which of them are real text."""

    keys: Float[Tensor, "batch heads text_length head_width"]
    values: Float[Tensor, "batch heads text_length head_width"]
    mask: Bool[Tensor, "batch 1 1 text_length"]


class CrossAttention(nn.Module):
    """Image positions look at the text. The text's keys and values are computed once per prompt."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.queries = nn.Linear(width, width)
        self.keys_values = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def text(
        self, states: Float[Tensor, "batch text_length width"], mask: Bool[Tensor, "batch text_length"]
    ) -> TextKeysValues:
        """What every call for these prompts will need of the text."""
        split = self.keys_values(states).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        keys, values = split.unbind(0)
        return TextKeysValues(keys, values, mask[:, None, None, :])

    def forward(self, x: Float[Tensor, "batch rows width"], text: TextKeysValues) -> Float[Tensor, "batch rows width"]:
        """What each row learns from the text."""
        queries = self.queries(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        heads = F.scaled_dot_product_attention(queries, text.keys, text.values, attn_mask=text.mask)
        joined: Tensor = self.output(heads.transpose(1, 2).flatten(2))
        return joined
