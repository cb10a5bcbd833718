"""Self-attention with an optional cache, and cross-attention to the text.

Shapes: `batch`, `rows` (positions of the sequence that are computed), `text_length`, and `width = heads * head_width`.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fluid_core.backbone.chosen_rows import ChosenRows
from fluid_core.backbone.key_value_cache import KeyValueCache
from fluid_core.backbone.linear import Linear
from fluid_core.backbone.next_rows import NextRows


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself.

    The ways to call it are rules of who sees whom. `cached` gives exactly what `causal` gives for the same rows of the
    whole sequence, at the cost of the new rows alone.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = Linear(width, 3 * width)
        self.output = Linear(width, width)

    def bidirectional(
        self, x: Float[Tensor, "batch rows width"], mask: Bool[Tensor, "batch 1 1 rows"] | None = None
    ) -> Float[Tensor, "batch rows width"]:
        """Every row sees every row, or those where `mask` is True."""
        queries, keys, values = self._project(x)
        return self._join(F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask))

    def bidirectional_at(
        self, x: Float[Tensor, "batch rows width"], positions: Int[Tensor, "batch chosen"]
    ) -> Float[Tensor, "batch chosen width"]:
        """As `bidirectional`, computed for the rows at `positions` alone."""
        batch = torch.arange(len(x), device=x.device)[:, None]
        (queries,) = self._project(x[batch, positions], first=0, count=1)
        keys, values = self._project(x, first=1, count=2)
        return self._join(F.scaled_dot_product_attention(queries, keys, values))

    def bidirectional_chosen(
        self, x: Float[Tensor, "batch rows width"], chosen: ChosenRows
    ) -> Float[Tensor, "chosen width"]:
        """As `bidirectional`, with outputs of the chosen rows alone.

        Queries of the others are computed: a part of the weights by itself would cost training more than it saves.
        """
        queries, keys, values = self._project(x)
        heads = F.scaled_dot_product_attention(queries, keys, values)
        joined: Tensor = self.output(chosen.take(heads.transpose(1, 2).flatten(2)))
        return joined

    def causal(self, x: Float[Tensor, "batch rows width"]) -> Float[Tensor, "batch rows width"]:
        """Every row sees itself and the rows before it."""
        queries, keys, values = self._project(x)
        return self._join(F.scaled_dot_product_attention(queries, keys, values, is_causal=True))

    def cached(
        self,
        x: Float[Tensor, "batch rows width"],
        cache: KeyValueCache,
        rows: NextRows,
        mask: Bool[Tensor, "rows all_rows"] | None,
    ) -> Float[Tensor, "batch rows width"]:
        """The next rows of a causal sequence, of which `rows` says what they are; `mask` is `rows.mask`."""
        queries, keys, values = self._project(x)
        keys, values = cache.add(keys, values, num_committed=rows.num_committed)
        return self._join(F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask))

    def cached_questions(
        self,
        x: Float[Tensor, "batch rows width"],
        cache: KeyValueCache,
        rows: NextRows,
        mask: Bool[Tensor, "rows all_rows"] | None,
    ) -> Float[Tensor, "batch questions width"]:
        """As `cached`, computed for the questions alone."""
        (queries,) = self._project(x[:, -rows.num_questions :], first=0, count=1)
        keys, values = self._project(x, first=1, count=2)
        keys, values = cache.add(keys, values, num_committed=rows.num_committed)
        mask = None if mask is None else mask[-rows.num_questions :]
        return self._join(F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask))

    def _project(self, x: Tensor, *, first: int = 0, count: int = 3) -> tuple[Tensor, ...]:
        """Queries, keys and values of rows, or `count` of the three from number `first` on."""
        width = x.shape[-1]
        projected: Tensor = self.qkv(x) if count == 3 else self.qkv.part(x, first * width, (first + count) * width)
        split = projected.unflatten(-1, (count, self.num_heads, -1))  # type: ignore[no-untyped-call]
        # Not by index: the gradient of each would fill a tensor of all of them.
        parts: tuple[Tensor, ...] = split.permute(2, 0, 3, 1, 4).unbind(0)
        return parts

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
        self.queries = Linear(width, width)
        self.keys_values = nn.Linear(width, 2 * width)
        self.output = Linear(width, width)

    def text(
        self, states: Float[Tensor, "batch text_length width"], mask: Bool[Tensor, "batch text_length"]
    ) -> TextKeysValues:
        """What every call for these prompts will need of the text."""
        split = self.keys_values(states).unflatten(-1, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        keys, values = split.unbind(0)
        return TextKeysValues(keys, values, mask[:, None, None, :])

    def forward(
        self, x: Float[Tensor, "*rows width"], text: TextKeysValues, chosen: ChosenRows | None = None
    ) -> Float[Tensor, "*rows width"]:
        """What each row learns from the text. Rows are (batch, rows), or one list of the `chosen` ones."""
        queries = self.queries(x) if chosen is None else chosen.put(self.queries(x))
        queries = queries.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        heads = F.scaled_dot_product_attention(queries, text.keys, text.values, attn_mask=text.mask)
        heads = heads.transpose(1, 2).flatten(2)
        joined: Tensor = self.output(heads if chosen is None else chosen.take(heads))
        return joined
