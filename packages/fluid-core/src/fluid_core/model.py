"""`FluidModel` joins a tokenizer, a text encoder, an order, the backbone and a head, and returns the training loss."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn

from fluid_core.backbone.sizes import BackboneShape, backbone_shape
from fluid_core.backbone.token_embedding import TokenEmbedding
from fluid_core.backbone.transformer import Transformer
from fluid_core.building import missing_members
from fluid_core.errors import IncompatibleComponentsError, InvalidComponentError, InvalidRequestError
from fluid_core.exchange import AttentionPattern, HeadContext, TextFeatures, TrainingView
from fluid_core.keyed_random import KeyedRandom
from fluid_core.protocols import Head, OrderPolicy, TextEncoder, Tokenizer
from fluid_core.text.text_aligner import AlignedText, TextAligner

if TYPE_CHECKING:
    from fluid_core.catalog import ComponentCatalog
    from fluid_core.configuration import FluidConfig

HeadBuilder = Callable[[HeadContext], Head]


@attrs.frozen(kw_only=True)
class TrainingBatch:
    """Everything random about one training step, already drawn, so that the forward pass is a plain function."""

    tokens: Shaped[Tensor, "batch length *token"]
    text: TextFeatures
    dropped: Bool[Tensor, "batch"]
    """Images whose caption is replaced by the state for no text, which is what guidance needs at sampling."""

    view: TrainingView
    random: KeyedRandom
    """One row per image."""


@attrs.frozen(kw_only=True)
class BatchLoss:
    """Summed loss and number of predicted tokens: over ranks and accumulation steps, divide sum by sum."""

    total: Float[Tensor, ""]
    num_tokens: int
    parts: dict[str, Float[Tensor, ""]]
    """Summed parts of the loss, detached, for logging."""

    @property
    def mean(self) -> Float[Tensor, ""]:
        """Mean loss per predicted token."""
        return self.total / self.num_tokens


class FluidModel(nn.Module):
    """An autoregressive text-to-image model put together from parts.

    `head` is a head module, or a function from `HeadContext` to one where the head needs to know the width or shares
    the token embedding. `backbone` is a `BackboneShape` or the name of one. Tokenizer and frozen text encoder are not
    trained. Raises `InvalidComponentError` for a part that lacks something its protocol asks for, and
    `IncompatibleComponentsError` for a head and a tokenizer of different token spaces.
    """

    config: "FluidConfig | None" = None
    """The configuration the model was built from; None for models put together from objects."""

    catalog: "ComponentCatalog | None" = None
    """Where the parts that `config` names were found; None for models put together from objects."""

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        text_encoder: TextEncoder,
        order: OrderPolicy,
        head: Head | HeadBuilder,
        backbone: BackboneShape | str = "mini",
    ) -> None:
        super().__init__()
        shape = backbone_shape(backbone) if isinstance(backbone, str) else backbone
        for part, protocol in ((tokenizer, Tokenizer), (text_encoder, TextEncoder), (order, OrderPolicy)):
            check_component(part, protocol, needs_module=protocol is not OrderPolicy)
        space = tokenizer.token_space
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.order = order
        self.aligner = TextAligner(text_encoder.width, shape)
        self.token_embedding = TokenEmbedding(space, shape.width, order.attention, order.trained_permutations)
        self.transformer = Transformer(shape)
        if not isinstance(head, nn.Module) and callable(head):
            context = HeadContext(token_space=space, width=shape.width, token_embedding=self.token_embedding.content)
            head = head(context)
        check_component(head, Head, needs_module=True)
        self.head = head
        if head.token_space != space:
            raise IncompatibleComponentsError(
                f"The tokenizer produces {space}, but the head predicts {head.token_space}. "
                "Build the head for the tokenizer's token_space."
            )
        self.tokenizer.requires_grad_(False)  # type: ignore[attr-defined]
        if text_encoder.frozen:
            self.text_encoder.requires_grad_(False)  # type: ignore[attr-defined]
        self.train()

    @classmethod
    def from_config(cls, config: "FluidConfig", catalog: "ComponentCatalog | None" = None) -> "FluidModel":
        """Build every part by name. The default catalog holds what is installed. Weights are drawn from torch's
        global generator: seed it for a reproducible start.
        """
        from fluid_core.assembly import build_model

        return build_model(config, catalog)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.token_embedding.placeholder.device

    def train(self, mode: bool = True) -> "FluidModel":
        """Switch what trains between training and evaluation; tokenizer and frozen text encoder always evaluate."""
        super().train(mode)
        self.tokenizer.eval()  # type: ignore[attr-defined]
        if self.text_encoder.frozen:
            self.text_encoder.eval()  # type: ignore[attr-defined]
        return self

    def prepare(
        self,
        images: Float[Tensor, "batch 3 height width"],
        captions: Sequence[str],
        *,
        generator: torch.Generator,
        text_drop_probability: float = 0.1,
    ) -> TrainingBatch:
        """Tokenise images in [-1, 1] and draw all the randomness of a step from `generator` (on the CPU)."""
        if len(captions) != len(images):
            raise InvalidRequestError(
                f"Expected one caption per image, found {len(images)} images and {len(captions)} captions."
            )
        batch_size = len(images)
        random = KeyedRandom.from_generator(generator, batch_size, self.device)
        tokens = self.tokens(images.to(self.device), random=random.child(0))
        dropped = torch.rand(batch_size, generator=generator) < text_drop_probability
        view = self.order.training_view(
            batch_size, self.tokenizer.token_space.grid, generator=generator, device=self.device
        )
        return TrainingBatch(
            tokens=tokens,
            text=self.encode_text(captions),
            dropped=dropped.to(self.device),
            view=view,
            random=random.child(1),
        )

    def forward(self, batch: TrainingBatch) -> BatchLoss:
        """Loss summed over the tokens the order predicts; nothing is computed for the others in the head."""
        aligned = self.aligner(batch.text, batch.dropped)
        text = self.transformer.text(aligned.states, aligned.mask)
        tokens, view = batch.tokens, batch.view
        keys = batch.random.children(torch.arange(tokens.shape[1], device=tokens.device).expand(len(tokens), -1))
        if self.order.attention is AttentionPattern.CAUSAL:
            rows = self.token_embedding.sequence(tokens, view.order)
            hidden = self.transformer(rows, text, causal=True).flatten(0, 1)
            first_row = torch.arange(len(tokens), device=tokens.device)[:, None] * tokens.shape[1]
            chosen = (first_row + view.order).flatten()
        else:
            predicted = view.predicted()
            rows = self.token_embedding.canvas(tokens, ~predicted)
            chosen = predicted.flatten().nonzero().squeeze(1)
            hidden = self.transformer(rows, text, causal=False).flatten(0, 1)[chosen]
        loss = self.head.loss(hidden, tokens.flatten(0, 1)[chosen], random=keys.rows(chosen))  # type: ignore[operator]
        parts = {name: part.detach().sum() for name, part in loss.parts.items()}
        return BatchLoss(total=loss.total.sum(), num_tokens=len(chosen), parts=parts)

    def loss(
        self,
        images: Float[Tensor, "batch 3 height width"],
        captions: Sequence[str],
        *,
        generator: torch.Generator,
        text_drop_probability: float = 0.1,
    ) -> BatchLoss:
        """`prepare` and `forward` in one call."""
        drawn = self.prepare(images, captions, generator=generator, text_drop_probability=text_drop_probability)
        loss: BatchLoss = self(drawn)
        return loss

    def tokens(
        self, images: Float[Tensor, "batch 3 height width"], *, random: KeyedRandom
    ) -> Shaped[Tensor, "batch length *token"]:
        """The tokenizer's tokens of images in [-1, 1]; `random` has one row per image."""
        with torch.no_grad():
            tokenizer: Tokenizer = self.tokenizer
            return tokenizer.tokens(tokenizer.precompute(images), random=random)

    def encode_text(self, prompts: Sequence[str]) -> TextFeatures:
        """The text encoder's states, without gradients if it is frozen."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.text_encoder.frozen):
            encoded: TextFeatures = self.text_encoder.encode(prompts)
            return encoded

    def align_text(self, prompts: Sequence[str]) -> AlignedText:
        """Prompts as the backbone sees them."""
        aligned: AlignedText = self.aligner(self.encode_text(prompts))
        return aligned

    def saved_state(self) -> dict[str, Tensor]:
        """The weights a saved model holds: all of them but those of a frozen text encoder, which is named instead."""
        left_out = "text_encoder." if self.text_encoder.frozen else None
        return {
            name: tensor
            for name, tensor in self.state_dict().items()
            if left_out is None or not name.startswith(left_out)
        }


def check_component(part: object, protocol: type, *, needs_module: bool) -> None:
    """Raise `InvalidComponentError` unless `part` has all members of `protocol` and, if asked, is a `nn.Module`."""
    name = f"{type(part).__module__}.{type(part).__qualname__}"
    if missing := missing_members(part, protocol):
        raise InvalidComponentError(
            f"{name} is no {protocol.__name__}: it lacks {', '.join(missing)}. "
            f"See fluid_core.protocols.{protocol.__name__} for what each must do."
        )
    if needs_module and not isinstance(part, nn.Module):
        raise InvalidComponentError(
            f"{name} must also be a torch.nn.Module, so that it moves, trains and saves with the model."
        )
