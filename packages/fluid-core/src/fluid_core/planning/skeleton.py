"""The model of a configuration with shapes alone: the real modules, in fake tensors, with what trains in them."""

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import attrs
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from fluid_core.catalog import ComponentCatalog, installed_components
from fluid_core.compatibility import check_configuration
from fluid_core.configuration import FluidConfig
from fluid_core.exchange import AttentionPattern, HeadContext, TextFeatures, TrainingView
from fluid_core.keyed_random import KeyedRandom
from fluid_core.model import FluidModel, TrainingBatch
from fluid_core.planning.frozen_parts import text_encoder_outline, tokenizer_outline
from fluid_core.planning.outlines import TextEncoderOutline, TokenizerOutline
from fluid_core.protocols import Head, OrderPolicy, TextEncoder
from fluid_core.token_space import Grid

_NUM_DRAWN = 4096
"""Images whose training views tell the mean share of predicted tokens."""


class OutlinedTokenizer(nn.Module):
    """Stands where a tokenizer would: it has a token space, and no weights."""

    def __init__(self, outline: TokenizerOutline) -> None:
        super().__init__()
        self.token_space = outline.token_space
        self.image_size = outline.image_size

    def precompute(self, images: Tensor) -> dict[str, Tensor]:  # noqa: ARG002
        """Not possible."""
        _no_weights()

    def tokens(self, precomputed: Mapping[str, Tensor], *, random: KeyedRandom) -> Tensor:  # noqa: ARG002
        """Not possible."""
        _no_weights()

    def decode(self, tokens: Tensor) -> Tensor:  # noqa: ARG002
        """Not possible."""
        _no_weights()


class OutlinedTextEncoder(nn.Module):
    """Stands where a frozen text encoder would."""

    frozen = True

    def __init__(self, outline: TextEncoderOutline) -> None:
        super().__init__()
        self.width = outline.width
        self.max_length = outline.max_length

    def encode(self, prompts: Sequence[str]) -> TextFeatures:  # noqa: ARG002
        """Not possible."""
        _no_weights()

    def encode_empty(self) -> TextFeatures:
        """Not possible."""
        _no_weights()


def _no_weights() -> NoReturn:
    raise AssertionError("a skeleton has no weights: only its forward pass can be rehearsed")


@attrs.frozen(kw_only=True, eq=False)
class Skeleton:
    """A model whose trained parameters have shapes and types and no values."""

    model: FluidModel
    tokenizer: TokenizerOutline
    text: TextEncoderOutline | None
    """None for a text encoder that trains with the model and so belongs to `model`."""

    predicted_share: float
    """Share of the tokens that the order has the model predict in training, on average."""

    fake: FakeTensorMode

    @property
    def length(self) -> int:
        """Tokens of one image."""
        return self.tokenizer.token_space.grid.length

    @property
    def max_text_length(self) -> int:
        """Longest caption, in tokens of the text encoder."""
        return int(self.model.text_encoder.max_length)

    def num_predicted(self, num_images: int) -> int:
        """Tokens predicted of a batch, on average."""
        return max(1, round(num_images * self.length * self.predicted_share))

    def batch(self, num_images: int, text_length: int) -> TrainingBatch:
        """A batch for the forward pass; only inside the mode `fake`."""
        space = self.tokenizer.token_space

        def text(rows: int, length: int) -> TextFeatures:
            states = torch.zeros(rows, length, self.model.text_encoder.width)
            states.requires_grad_(not self.model.text_encoder.frozen)
            return TextFeatures(states=states, mask=torch.ones(rows, length, dtype=torch.bool))

        return TrainingBatch(
            tokens=torch.zeros(num_images, space.grid.length, *space.token_shape, dtype=space.dtype),
            text=text(num_images, text_length),
            dropped=torch.zeros(num_images, dtype=torch.bool),
            view=TrainingView(
                order=torch.arange(space.grid.length).repeat(num_images, 1),
                num_known=torch.zeros(num_images, dtype=torch.int64),
            ),
            random=KeyedRandom(torch.zeros(num_images, dtype=torch.int64)),
            empty_prompt=None if self.model.aligner.no_text is not None else text(1, 1),
        )


def build_skeleton(config: FluidConfig, catalog: ComponentCatalog | None = None) -> Skeleton:
    """The model of a configuration without values.

    The trained parts are the real modules, whoever wrote them. A tokenizer or text encoder with weights from elsewhere
    is outlined and not loaded. Raises what `check_configuration` does, and what outlining or building a part raises.
    """
    catalog = catalog or installed_components()
    check_configuration(config, catalog)
    tokenizer = tokenizer_outline(config.tokenizer, catalog)
    text, trained_encoder = text_encoder_outline(config.text_encoder, catalog)
    order: OrderPolicy = catalog.build("order", config.order.name, config.order.options, root="$.order.options")
    share = predicted_share(order, tokenizer.token_space.grid)

    def build_head(context: HeadContext) -> Head:
        head: Head = catalog.build("head", config.head.name, config.head.options, context, root="$.head.options")
        return head

    encoder: Any = trained_encoder if text is None else OutlinedTextEncoder(text)
    assert isinstance(encoder, TextEncoder)
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake:
        model = FluidModel(
            tokenizer=OutlinedTokenizer(tokenizer),
            text_encoder=encoder,
            order=order,
            head=build_head,
            backbone=config.backbone.shape(),
            unconditional=config.unconditional,
        )
    return Skeleton(model=model, tokenizer=tokenizer, text=text, predicted_share=share, fake=fake)


def predicted_share(order: OrderPolicy, grid: Grid) -> float:
    """Mean share of an image's tokens that training with `order` predicts: all of them where it is causal."""
    if order.attention is AttentionPattern.CAUSAL:
        return 1.0
    generator = torch.Generator().manual_seed(0)
    view = order.training_view(_NUM_DRAWN, grid, generator=generator, device=torch.device("cpu"))
    return view.num_predicted / view.order.numel()
