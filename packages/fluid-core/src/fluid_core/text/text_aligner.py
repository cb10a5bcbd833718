"""The trainable bridge from a text encoder's states to the backbone (paper, section 3: six transformer blocks)."""

import attrs
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from fluid_core.backbone.attention import SelfAttention
from fluid_core.backbone.feed_forward import FeedForward
from fluid_core.backbone.layer_norm import layer_norm
from fluid_core.backbone.sizes import BackboneShape
from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import TextFeatures
from fluid_core.text.options import UnconditionalText


@attrs.frozen(kw_only=True, eq=False)
class AlignedText:
    """Text as the backbone sees it: states of its own width, and which of them are real."""

    states: Float[Tensor, "batch text_length width"]
    mask: Bool[Tensor, "batch text_length"]


class AlignerBlock(nn.Module):
    """Self-attention among the text tokens and an MLP."""

    def __init__(self, shape: BackboneShape) -> None:
        super().__init__()
        self.self_attention_norm = layer_norm(shape.width)
        self.self_attention = SelfAttention(shape.width, shape.num_heads)
        self.feed_forward_norm = layer_norm(shape.width)
        self.feed_forward = FeedForward(shape.width, round(shape.width * shape.mlp_ratio))

    def forward(
        self, x: Float[Tensor, "batch text_length width"], mask: Bool[Tensor, "batch 1 1 text_length"]
    ) -> Float[Tensor, "batch text_length width"]:
        """States after this block; padding is never looked at."""
        x = x + self.self_attention.bidirectional(self.self_attention_norm(x), mask)
        updated: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return updated


class TextAligner(nn.Module):
    """Projects text states to the backbone's width and refines them.

    It also decides what stands for "no text": the unconditional branch of classifier-free guidance, and what a dropped
    caption becomes in training. That is a learned state of its own, or with `unconditional` "empty-prompt" the text
    encoder's states of an empty prompt, aligned like any others.
    """

    def __init__(self, text_width: int, shape: BackboneShape, unconditional: UnconditionalText = "learned") -> None:
        super().__init__()
        self.input_norm = layer_norm(text_width)
        self.projection = nn.Linear(text_width, shape.width)
        self.blocks = nn.ModuleList(AlignerBlock(shape) for _ in range(shape.aligner_depth))
        self.output_norm = layer_norm(shape.width)
        self.no_text: nn.Parameter | None
        if unconditional == "learned":
            self.no_text = nn.Parameter(torch.empty(shape.width))
            nn.init.normal_(self.no_text, std=1.0)
        else:
            self.register_parameter("no_text", None)

    def forward(
        self,
        text: TextFeatures,
        dropped: Bool[Tensor, "batch"] | None = None,
        empty_prompt: TextFeatures | None = None,
    ) -> AlignedText:
        """Aligned states of encoded prompts; where `dropped`, what stands for "no text" instead.

        `empty_prompt` (one row) is needed with `dropped` by an aligner without a learned state. Raises
        `InvalidRequestError` if it is not there.
        """
        if dropped is not None and self.no_text is None:
            text = _with_empty_prompt(text, dropped, _needed(empty_prompt))
        # Encoders may give their states in single precision whatever the weights are in.
        x = self.projection(self.input_norm(text.states.to(self.projection.weight.dtype)))
        for block in self.blocks:
            x = block(x, text.mask[:, None, None, :])
        x = self.output_norm(x)
        mask = text.mask
        if dropped is not None and self.no_text is not None:
            x = torch.where(dropped[:, None, None], self.no_text, x)
            first_only = torch.arange(mask.shape[1], device=mask.device) == 0
            mask = torch.where(dropped[:, None], first_only, mask)
        return AlignedText(states=x, mask=mask)

    def unconditional(self, batch_size: int, empty_prompt: TextFeatures | None = None) -> AlignedText:
        """What stands for no text, for a batch of prompts; `empty_prompt` as in `forward`."""
        if self.no_text is None:
            aligned: AlignedText = self(_needed(empty_prompt))
            rows = torch.zeros(batch_size, dtype=torch.int64, device=aligned.states.device)
            return AlignedText(states=aligned.states[rows], mask=aligned.mask[rows])
        states = self.no_text.expand(batch_size, 1, -1)
        return AlignedText(states=states, mask=torch.ones(batch_size, 1, dtype=torch.bool, device=states.device))


def _needed(empty_prompt: TextFeatures | None) -> TextFeatures:
    if empty_prompt is None:
        raise InvalidRequestError(
            "Expected the states of the empty prompt, which stand for no text in this model, found none. Pass those of "
            "FluidModel.empty_prompt()."
        )
    return empty_prompt


def _with_empty_prompt(text: TextFeatures, dropped: Bool[Tensor, "batch"], empty_prompt: TextFeatures) -> TextFeatures:
    """Text in which dropped rows hold the empty prompt."""
    length = max(text.mask.shape[1], empty_prompt.mask.shape[1])

    def padded(states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        extra = length - mask.shape[1]
        return functional.pad(states, (0, 0, 0, extra)), functional.pad(mask, (0, extra), value=False)

    states, mask = padded(text.states, text.mask)
    empty_states, empty_mask = padded(empty_prompt.states, empty_prompt.mask)
    return TextFeatures(
        states=torch.where(dropped[:, None, None], empty_states.to(states.dtype), states),
        mask=torch.where(dropped[:, None], empty_mask, mask),
    )
