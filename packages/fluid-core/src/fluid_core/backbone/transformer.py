"""The decoder-only stack of the paper (section 3): self-attention, cross-attention to the text, MLP.

Pre-normalisation, biases and GELU are our choices; the paper does not state them.
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fluid_core.backbone.attention import CrossAttention, SelfAttention, TextKeysValues
from fluid_core.backbone.chosen_rows import ChosenRows
from fluid_core.backbone.feed_forward import FeedForward
from fluid_core.backbone.key_value_cache import KeyValueCache
from fluid_core.backbone.layer_norm import layer_norm
from fluid_core.backbone.next_rows import NextRows
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
        self,
        x: Float[Tensor, "batch rows width"],
        text: TextKeysValues,
        attend: Callable[[Tensor], Tensor],
        wanted: Callable[[Tensor], Tensor] | None = None,
        chosen: ChosenRows | None = None,
    ) -> Float[Tensor, "*some_rows width"]:
        """Rows after this block; `attend` is this block's self-attention in one of its modes.

        There may be more texts than rows of images, a multiple: all images then come once for the first texts, once
        for the next, and so on. With `wanted`, which selects rows, `attend` gives those alone, as many of each image,
        (texts, some rows, width); with `chosen`, any number of each, (chosen, width), and as many texts as images.
        """
        attended = attend(self.self_attention_norm(x))
        if chosen is not None:
            wanted = chosen.take
        x = (x if wanted is None else wanted(x)) + self._dropped(attended)
        if chosen is None and len(text.keys) > len(x):
            # Until they first look at the text, images that differ in nothing else are the same.
            x = x.repeat(len(text.keys) // len(x), 1, 1)
        x = x + self._dropped(self.cross_attention(self.cross_attention_norm(x), text, chosen))
        updated: Tensor = x + self._dropped(self.feed_forward(self.feed_forward_norm(x)))
        return updated

    def _dropped(self, branch: Tensor) -> Tensor:
        # A call that does nothing takes as long as an addition, where rows are decoded one at a time.
        return self.dropout(branch) if self.training else branch


class Transformer(nn.Module):
    """The stack of blocks. `forward` serves training; `at` and `advance` compute what generation asks for."""

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
        self,
        x: Float[Tensor, "batch rows width"],
        text: list[TextKeysValues],
        *,
        causal: bool,
        numbers: Int[Tensor, "chosen"] | None = None,
    ) -> Float[Tensor, "batch rows width"] | Float[Tensor, "chosen width"]:
        """One hidden vector per row of a whole canvas or a whole causal sequence.

        Of canvases, `numbers` chooses rows by their numbers in the flattened batch, any number of each canvas: hidden
        vectors are those of the chosen rows, and the last block finishes no other.
        """
        assert numbers is None or not causal, "Rows are chosen of canvases; of a causal sequence all are wanted."
        chosen = None if numbers is None else ChosenRows(numbers, batch_size=x.shape[0], num_rows=x.shape[1])
        *blocks, last = self._blocks()
        for block, block_text in zip(blocks, text[:-1], strict=True):
            attention = block.self_attention
            x = block(x, block_text, attention.causal if causal else attention.bidirectional)
        attention = last.self_attention
        if chosen is None:
            x = last(x, text[-1], attention.causal if causal else attention.bidirectional)
        else:
            x = last(x, text[-1], partial(attention.bidirectional_chosen, chosen=chosen), None, chosen)
        return self._normalised(x)

    def at(
        self,
        x: Float[Tensor, "batch rows width"],
        text: list[TextKeysValues],
        positions: Int[Tensor, "batch chosen"],
    ) -> Float[Tensor, "texts chosen width"]:
        """Hidden vectors of some rows of a canvas; the last block computes nothing else.

        There may be more texts than canvases, a multiple: all canvases for the first texts come first.
        """
        *blocks, last = self._blocks()
        for block, block_text in zip(blocks, text, strict=False):
            x = block(x, block_text, block.self_attention.bidirectional)
        positions = positions.repeat(len(x) // len(positions), 1)
        index = torch.arange(len(x), device=x.device)[:, None], positions
        x = last(x, text[-1], lambda h: last.self_attention.bidirectional_at(h, positions), lambda rows: rows[index])
        return self._normalised(x)

    def advance(
        self,
        x: Float[Tensor, "batch rows width"],
        text: list[TextKeysValues],
        caches: list[KeyValueCache],
        *,
        num_questions: int,
    ) -> Float[Tensor, "texts questions width"]:
        """Go on with a causal sequence: commit rows and ask about several possible next ones.

        The last `num_questions` rows (1 or more) are the questions, as `NextRows` tells; theirs are the hidden vectors.
        There may be more texts than sequences, as in `at`.
        """
        rows = NextRows(num_rows=x.shape[1], num_questions=num_questions)
        mask = rows.mask(caches[0].length, x.device)
        *blocks, last = self._blocks()
        for block, block_text, cache in zip(blocks, text, caches, strict=False):
            x = block(x, block_text, lambda h, b=block, c=cache: b.self_attention.cached(h, c, rows, mask))
        x = last(
            x,
            text[-1],
            lambda h: last.self_attention.cached_questions(h, caches[-1], rows, mask),
            lambda h: h[:, -num_questions:],
        )
        return self._normalised(x)

    def caches(self, batch_size: int, capacity: int, *, texts_per_row: int = 1) -> list[KeyValueCache]:
        """An empty cache for every block, on the device and in the type of the weights.

        With several texts for each sequence the first block, where they are still the same, keeps one of each.
        """
        weight = self.output_norm.weight
        return [
            KeyValueCache(
                batch_size=batch_size * (texts_per_row if index else 1),
                num_heads=self.shape.num_heads,
                capacity=capacity,
                head_width=self.shape.width // self.shape.num_heads,
                device=weight.device,
                dtype=weight.dtype,
            )
            for index in range(len(self.blocks))
        ]

    def _blocks(self) -> list[TransformerBlock]:
        return list(self.blocks)  # type: ignore[arg-type]

    def _normalised(self, x: Tensor) -> Tensor:
        hidden: Tensor = self.output_norm(x)
        return hidden
