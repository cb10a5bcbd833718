"""What each position looks at: the attention weights of a forward pass, computed once more from its queries and keys.

The layers themselves use a fused kernel that never holds the weights. Here hooks on the projections that every layer
has keep their outputs while a block of code runs, and softmax(Q K^T / sqrt(d)) is computed from them.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fluid_core.backbone.attention import TextKeysValues
from fluid_core.backbone.transformer import Transformer, TransformerBlock
from fluid_core.errors import InvalidRequestError


@attrs.frozen(kw_only=True, eq=False)
class AttentionMaps:
    """Attention weights of the calls that were recorded, one list entry for each layer from the first to the last."""

    to_image: list[Float[Tensor, "batch heads rows rows"]]
    """Of each row of the sequence, over the rows: they add up to 1, and where attention is causal a row gives no
    weight to later ones."""

    to_text: list[Float[Tensor, "batch heads rows text_length"]]
    """Of each row, over the states of the text; padding has none."""


class _Recorded:
    """Inputs and outputs of the projections of one layer, of the latest call."""

    def __init__(self) -> None:
        self.qkv: Tensor | None = None
        self.text_queries: Tensor | None = None
        self.text: TextKeysValues | None = None


class AttentionRecorder:
    """Keeps what is needed of the latest forward pass; `maps` computes the weights."""

    def __init__(self, transformer: Transformer) -> None:
        self._blocks: list[TransformerBlock] = list(transformer.blocks)  # type: ignore[arg-type]
        self._layers = [_Recorded() for _ in self._blocks]

    def hooks(self) -> list[RemovableHandle]:
        """Start to record; removing the handles ends it."""
        handles = []
        for block, layer in zip(self._blocks, self._layers, strict=True):
            handles += [
                _keep_output(block.self_attention.qkv, layer, "qkv"),
                _keep_output(block.cross_attention.queries, layer, "text_queries"),
                block.cross_attention.register_forward_pre_hook(_keeping_text(layer)),
            ]
        return handles

    def maps(self, *, causal: bool) -> AttentionMaps:
        """The weights of the latest recorded call of `Transformer.forward`, which was `causal` or not.

        Raises `InvalidRequestError` if nothing was recorded, or a pass that finished some rows alone.
        """
        to_image, to_text = [], []
        for block, layer in zip(self._blocks, self._layers, strict=True):
            if layer.qkv is None or layer.text_queries is None or layer.text is None:
                raise InvalidRequestError(
                    "Expected a forward pass to have been recorded, found none: call the transformer inside "
                    "`with recorded_attention(transformer)`."
                )
            if layer.text_queries.ndim == 2:
                raise InvalidRequestError(
                    "Expected a recorded pass to compute every row, found one that finished only rows chosen by their "
                    "`numbers`, as training in random order does: call the transformer without them."
                )
            to_image.append(self_attention_weights(layer.qkv, block.self_attention.num_heads, causal=causal))
            queries = _by_head(layer.text_queries, 1, block.cross_attention.num_heads)[0]
            to_text.append(attention_weights(queries, layer.text.keys, layer.text.mask))
        return AttentionMaps(to_image=to_image, to_text=to_text)


@contextmanager
def recorded_attention(transformer: Transformer) -> Iterator[AttentionRecorder]:
    """Record the forward passes of `transformer` while the block runs; nothing of what it computes changes."""
    recorder = AttentionRecorder(transformer)
    handles = recorder.hooks()
    try:
        yield recorder
    finally:
        for handle in handles:
            handle.remove()


def self_attention_weights(
    qkv: Float[Tensor, "batch rows three_widths"], num_heads: int, *, causal: bool
) -> Float[Tensor, "batch heads rows rows"]:
    """Weights of a `SelfAttention` from the output of its `qkv`: queries, keys and values side by side."""
    queries, keys, _ = _by_head(qkv, 3, num_heads)
    num_rows = qkv.shape[1]
    visible = torch.ones(1, 1, num_rows, num_rows, dtype=torch.bool, device=qkv.device)
    return attention_weights(queries, keys, visible.tril() if causal else visible)


def attention_weights(
    queries: Float[Tensor, "batch heads rows head_width"],
    keys: Float[Tensor, "batch heads others head_width"],
    visible: Bool[Tensor, "_ 1 _ others"],
) -> Float[Tensor, "batch heads rows others"]:
    """Softmax of the scaled products, in float32; zero where `visible` is False."""
    scores = queries.float() @ keys.float().transpose(-1, -2) / math.sqrt(queries.shape[-1])
    return scores.masked_fill(~visible, -math.inf).softmax(dim=-1)


def _by_head(projected: Tensor, count: int, num_heads: int) -> Tensor:
    """`count` projections that stand side by side, as `count batch heads rows head_width`."""
    batch_size, num_rows, width = projected.shape
    split = projected.view(batch_size, num_rows, count, num_heads, width // (count * num_heads))
    return split.permute(2, 0, 3, 1, 4)


def _keep_output(module: nn.Module, layer: _Recorded, name: str) -> RemovableHandle:
    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        setattr(layer, name, output.detach())

    return module.register_forward_hook(keep)


def _keeping_text(layer: _Recorded) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def keep(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        layer.text = inputs[1]

    return keep
