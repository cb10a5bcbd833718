"""`FluidModel` joins a tokenizer, a text encoder, an order, the backbone and a head, and returns the training loss."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import attrs
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from fluid_core.atomic_files import load_state
from fluid_core.autocast import single_precision
from fluid_core.backbone.sizes import BackboneShape, backbone_shape
from fluid_core.backbone.token_embedding import TokenEmbedding
from fluid_core.backbone.transformer import Transformer
from fluid_core.building import missing_members
from fluid_core.errors import (
    CheckpointError,
    IncompatibleComponentsError,
    InvalidComponentError,
    InvalidRequestError,
)
from fluid_core.exchange import (
    AttentionPattern,
    BatchShare,
    EncodedBatch,
    HeadContext,
    TextFeatures,
    TokenLoss,
    TrainingView,
)
from fluid_core.keyed_random import KeyedRandom
from fluid_core.protocols import EncodesEmptyPrompt, Head, OrderPolicy, StoredApart, TextEncoder, Tokenizer
from fluid_core.sampler_choice import check_confidence
from fluid_core.text.options import UnconditionalText
from fluid_core.text.released_encoder import ReleasedTextEncoder
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
    """Images whose caption is replaced by what stands for no text, which is what guidance needs at sampling."""

    view: TrainingView
    random: KeyedRandom
    """One row per image."""

    num_tokens_in_all: int | None = None
    """Tokens predicted in the shares of all processes together; None if there is one process."""

    empty_prompt: TextFeatures | None = None
    """What `FluidModel.empty_prompt` gives: states that stand for no text, in models without a learned state for it."""


@attrs.frozen(kw_only=True)
class BatchLoss:
    """Summed loss and number of predicted tokens: over ranks and accumulation steps, divide sum by sum."""

    total: Float[Tensor, ""]
    num_tokens: int
    parts: dict[str, Float[Tensor, ""]]
    """Summed parts of the loss, detached, for logging."""

    num_tokens_in_all: int | None = None
    """Tokens predicted by all processes together; None if there is one process."""

    @property
    def mean(self) -> Float[Tensor, ""]:
        """Mean loss per predicted token; of several processes, each one's part of the mean over all of them."""
        return self.total / (self.num_tokens if self.num_tokens_in_all is None else self.num_tokens_in_all)


@attrs.frozen(kw_only=True)
class PredictedTokens:
    """The loss of each token that a batch predicts, and which tokens these are."""

    loss: TokenLoss
    chosen: Int[Tensor, "predicted"]
    """Numbers of the tokens: image times length plus position in raster order."""


class FluidModel(nn.Module):
    """An autoregressive text-to-image model put together from parts.

    `head` is a head module, or a function from `HeadContext` to one where the head needs to know the width or shares
    the token embedding. `backbone` is a `BackboneShape` or the name of one. `unconditional` says what stands for no
    text: a `learned` state, or the text encoder's states of the `empty-prompt`. Tokenizer and frozen text encoder are
    not trained. Raises `InvalidComponentError` for a part that lacks something its protocol asks for, and
    `IncompatibleComponentsError` for a head and a tokenizer of different token spaces, for an order that needs to know
    how sure the head is where the head can not tell, and for a text encoder that has no states for the empty prompt
    where they are wanted.
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
        unconditional: UnconditionalText = "learned",
    ) -> None:
        super().__init__()
        shape = backbone_shape(backbone) if isinstance(backbone, str) else backbone
        for part, protocol in ((tokenizer, Tokenizer), (text_encoder, TextEncoder), (order, OrderPolicy)):
            check_component(part, protocol, needs_module=protocol is not OrderPolicy)
        space = tokenizer.token_space
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.order = order
        if unconditional == "empty-prompt" and not isinstance(text_encoder, EncodesEmptyPrompt):
            raise IncompatibleComponentsError(
                f"The text encoder {type(text_encoder).__name__} has no states for an empty prompt: it lacks the "
                "method 'encode_empty'. Set unconditional = 'learned', or choose another text encoder."
            )
        self.aligner = TextAligner(text_encoder.width, shape, unconditional)
        self._empty_prompt: TextFeatures | None = None
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
        check_confidence(order, head)  # type: ignore[arg-type]
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
        encoded = self.encode(images, captions)
        return self.prepare_encoded(encoded, generator=generator, text_drop_probability=text_drop_probability)

    def encode(self, images: Float[Tensor, "batch 3 height width"], captions: Sequence[str]) -> EncodedBatch:
        """What does not change from epoch to epoch: images in [-1, 1] as the tokenizer stores them, and captions.

        Captions are encoded too if the text encoder is frozen.
        """
        if len(captions) != len(images):
            raise InvalidRequestError(
                f"Expected one caption per image, found {len(images)} images and {len(captions)} captions."
            )
        with torch.no_grad():
            precomputed = self.tokenizer.precompute(images.to(self.device))
        text = self.encode_text(captions) if self.text_encoder.frozen else None
        return EncodedBatch(precomputed=precomputed, captions=tuple(captions), text=text)

    def prepare_encoded(
        self,
        encoded: EncodedBatch,
        *,
        generator: torch.Generator,
        text_drop_probability: float = 0.1,
        share: BatchShare | None = None,
    ) -> TrainingBatch:
        """Draw all the randomness of a step from `generator` (on the CPU).

        With `share`, `encoded` is this process's part of a batch, and `generator` is the same in all processes.
        """
        num_images = len(encoded.captions)
        share = share or BatchShare(first=0, count=num_images, total=num_images)
        random = KeyedRandom.from_generator(generator, share.total, self.device).rows(share.rows)
        with torch.no_grad():
            precomputed = {name: tensor.to(self.device) for name, tensor in encoded.precomputed.items()}
            tokens = self.tokenizer.tokens(precomputed, random=random.child(0))
        dropped = torch.rand(share.total, generator=generator) < text_drop_probability
        view = self.order.training_view(
            share.total, self.tokenizer.token_space.grid, generator=generator, device=self.device
        )
        text = encoded.text or self.encode_text(encoded.captions)
        return TrainingBatch(
            tokens=tokens,
            text=TextFeatures(states=text.states.to(self.device), mask=text.mask.to(self.device)),
            dropped=dropped[share.rows].to(self.device),
            view=view.share(share.rows),
            random=random.child(1),
            num_tokens_in_all=view.num_predicted if share.count < share.total else None,
            empty_prompt=self.empty_prompt(),
        )

    def forward(self, batch: TrainingBatch) -> BatchLoss:
        """Loss summed over the tokens the order predicts; nothing is computed for the others in the head."""
        predicted = self.token_losses(batch)
        parts = {name: part.detach().sum() for name, part in predicted.loss.parts.items()}
        return BatchLoss(
            total=predicted.loss.total.sum(),
            num_tokens=len(predicted.chosen),
            parts=parts,
            num_tokens_in_all=batch.num_tokens_in_all,
        )

    def token_losses(self, batch: TrainingBatch) -> PredictedTokens:
        """What `forward` sums up: the loss of each token by itself."""
        aligned = self.aligner(batch.text, batch.dropped, batch.empty_prompt)
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
            hidden = self.transformer(rows, text, causal=False, numbers=chosen)
        # Whatever the backbone multiplies in, losses are those of single precision, for every head.
        hidden, outside_autocast = single_precision(hidden)
        with outside_autocast:
            target = tokens.flatten(0, 1)[chosen]
            loss = self.head.loss(hidden, target, random=keys.rows(chosen))  # type: ignore[operator]
        return PredictedTokens(loss=loss, chosen=chosen)

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

    def empty_prompt(self) -> TextFeatures | None:
        """States of the empty prompt where they stand for no text; None for a model with a learned state.

        A frozen encoder computes them once.
        """
        if self.aligner.no_text is not None:
            return None
        encoder = self.text_encoder
        assert isinstance(encoder, EncodesEmptyPrompt)
        if not self.text_encoder.frozen:
            found = encoder.encode_empty()
        else:
            # It outlives a caller's inference mode, whose tensors no gradient could pass.
            with torch.inference_mode(False), torch.no_grad():
                self._empty_prompt = found = self._empty_prompt or encoder.encode_empty()
        return TextFeatures(states=found.states.to(self.device), mask=found.mask.to(self.device))

    def unconditional_text(self, batch_size: int) -> AlignedText:
        """What stands for no text, as the backbone sees it."""
        return self.aligner.unconditional(batch_size, self.empty_prompt())

    def release_text_encoder(self) -> None:
        """Let the text encoder go, and with it its memory: from here on the model takes encoded prompts alone."""
        if isinstance(self.text_encoder, ReleasedTextEncoder):
            return
        with torch.no_grad():
            empty_prompt = self.empty_prompt()
        self.text_encoder = ReleasedTextEncoder(self.text_encoder, empty_prompt)

    def saved_state(self) -> dict[str, Tensor]:
        """The weights a saved model holds: all of them but those of a frozen text encoder, which is named instead, and
        those of a tokenizer that has a folder of its own for them.

        Raises `CheckpointError` if a text encoder that trains with the model was let go.
        """
        if isinstance(self.text_encoder, ReleasedTextEncoder) and not self.text_encoder.frozen:
            raise CheckpointError(
                "The text encoder of this model was let go, and its weights belong to the model: there is nothing "
                "whole to save. Save the model first, or load it anew."
            )
        left_out = [f"tokenizer.{name}." for name in modules_stored_apart(self.tokenizer)]
        if self.text_encoder.frozen:
            left_out.append("text_encoder.")
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(tuple(left_out))}

    def load_saved_state(self, state: Mapping[str, Tensor], *, source: str) -> None:
        """Take over the weights of a `saved_state`; `source` names it in messages.

        Raises `CheckpointMismatchError`, before any weight changes, for those of another model.
        """
        load_state(self, state, source=source, expected=self.saved_state())


def modules_stored_apart(tokenizer: object) -> tuple[str, ...]:
    """Names of the submodules of a tokenizer whose weights have a folder of their own."""
    return tokenizer.stored_modules if isinstance(tokenizer, StoredApart) else ()


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
