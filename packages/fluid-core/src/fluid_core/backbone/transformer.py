"""The decoder-only stack of the paper (section 3): self-attention, cross-attention to the text, MLP.

Pre-normalisation, biases and GELU are our choices; the paper does not state them.
"""

import math
from collections.abc import Callable

from jaxtyping import Bool, Float
from torch import Tensor, nn

from fluid_core.backbone.attention import CrossAttention, SelfAttention, TextKeysValues
from fluid_core.backbone.feed_forward import FeedForward
from fluid_core.backbone.key_value_cache import KeyValueCache
from fluid_core.backbone.layer_norm import layer_norm
from fluid_core.backbone.sizes import BackboneShape


class TransformerBlock(nn.Module):
    """One block. Only image positions pass through it; text enters through cross-attention alone."""

    def __init__(self, shape: BackboneShape) -> None:
        super().__init__()
        width = shape.width
        self.self_attention_norm = layer_norm(width)
        self.self_attention = SelfAttention(width, shape.num_heads)
        self.cross_attention_norm = layer_norm(width)
        self.cross_attention = CrossAttention(width, shape.num_heads)
        self.feed_forward_norm = layer_norm(width)
        self.feed_forward = FeedForward(width, round(width * shape.mlp_ratio))
        self.dropout = nn.Dropout(shape.dropout)

    def forward(
        self, x: Float[Tensor, "batch rows width"], text: TextKeysValues, attend: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "batch rows width"]:
        """Rows after this block; `attend` is this block's self-attention in one of its four modes."""
        x = x + self.dropout(attend(self.self_attention_norm(x)))
        x = x + self.dropout(self.cross_attention(self.cross_attention_norm(x), text))
        updated: Tensor = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return updated


class Transformer(nn.Module):
    """The stack of blocks. `forward` serves training; `extend` and `query` serve generation from a cache."""

    def __init__(self, shape: BackboneShape) -> None:
        super().__init__()
        self.shape = shape
        self.blocks = nn.ModuleList(TransformerBlock(shape) for _ in range(shape.depth))
        self.output_norm = layer_norm(shape.width)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Linear layers start at the scale of their inputs, branches that end in the residual stream smaller."""
        num_branches = 3 * len(self.blocks)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                std = 1.0 / math.sqrt(module.in_features)
                nn.init.normal_(module.weight, std=std / math.sqrt(num_branches) if name.endswith("output") else std)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                module.reset_parameters()

    def text(
        self, states: Float[Tensor, "batch text_length width"], mask: Bool[Tensor, "batch text_length"]
    ) -> list[TextKeysValues]:
        """Keys and values of aligned text for every block: computed once per prompt."""
        return [block.cross_attention.text(states, mask) for block in self._blocks()]

    def forward(
        self, x: Float[Tensor, "batch rows width"], text: list[TextKeysValues], *, causal: bool
    ) -> Float[Tensor, "batch rows width"]:
        """One hidden vector per row of a whole canvas or a whole causal sequence."""
        for block, block_text in zip(self._blocks(), text, strict=True):
            attention = block.self_attention
            x = block(x, block_text, attention.causal if causal else attention.bidirectional)
        return self._normalised(x)

    def extend(
        self, x: Float[Tensor, "batch rows width"], text: list[TextKeysValues], caches: list[KeyValueCache]
    ) -> Float[Tensor, "batch rows width"]:
        """Commit the next rows of a causal sequence, whose own next position is final."""
        for block, block_text, cache in zip(self._blocks(), text, caches, strict=True):
            x = block(x, block_text, lambda h, b=block, c=cache: b.self_attention.extend(h, c))
        return self._normalised(x)

    def query(
        self, x: Float[Tensor, "batch rows width"], text: list[TextKeysValues], caches: list[KeyValueCache]
    ) -> Float[Tensor, "batch rows width"]:
        """Ask about several possible next rows, each seeing the cache and itself; nothing is kept."""
        for block, block_text, cache in zip(self._blocks(), text, caches, strict=True):
            x = block(x, block_text, lambda h, b=block, c=cache: b.self_attention.query(h, c))
        return self._normalised(x)

    def caches(self, batch_size: int, capacity: int) -> list[KeyValueCache]:
        """An empty cache for every block, on the device and in the type of the weights."""
        weight = self.output_norm.weight
        return [
            KeyValueCache(
                batch_size=batch_size,
                num_heads=self.shape.num_heads,
                capacity=capacity,
                head_width=self.shape.width // self.shape.num_heads,
                device=weight.device,
                dtype=weight.dtype,
            )
            for _ in self.blocks
        ]

    def _blocks(self) -> list[TransformerBlock]:
        return list(self.blocks)  # type: ignore[arg-type]

    def _normalised(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.output_norm(x)
        return hidden
