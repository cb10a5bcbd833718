"""The one sampling loop, for every order and head.

An order proposes positions, the backbone gives one hidden vector for each, the head draws their tokens, the order says
which to keep. How hidden vectors are read differs by attention pattern: `CanvasReader` computes the whole canvas at
every step, `SequenceReader` only the new rows of a cached causal sequence.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import attrs
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from fluid_core.backbone.attention import TextKeysValues
from fluid_core.errors import IncompatibleComponentsError, InvalidComponentError, InvalidRequestError
from fluid_core.exchange import (
    AttentionPattern,
    Guidance,
    SamplerBackend,
    SamplerSettings,
    SamplingRequest,
    TrainedPermutations,
    sampler_backend,
)
from fluid_core.guidance import GuidanceSchedule
from fluid_core.keyed_random import KeyedRandom
from fluid_core.model import FluidModel
from fluid_core.protocols import AnnouncesKept, ConfidentSampler, OrderPolicy, UsesConfidence
from fluid_core.sampler_choice import ChosenSampler, build_sampler, check_confidence
from fluid_core.text.text_aligner import AlignedText


@attrs.frozen(kw_only=True)
class GenerationSettings:
    """How to sample. `num_steps` counts order steps, `num_head_steps` the head's evaluations per token; None is the
    default of the order or head. `temperature` is 0 or more. `head_backend` says which implementation of the head's
    sampler runs, and `head_options` replace options of the head for this generation, as `SamplerSettings` has them.
    """

    num_steps: int | None = None
    num_head_steps: int | None = None
    temperature: float = 1.0
    guidance: GuidanceSchedule = attrs.field(factory=GuidanceSchedule)
    head_backend: SamplerBackend = attrs.field(default=SamplerBackend.AUTO, converter=sampler_backend)
    head_options: Mapping[str, Any] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        if not math.isfinite(self.temperature) or self.temperature < 0:
            raise InvalidRequestError(f"Expected a temperature of 0 or more, found {self.temperature}.")

    @property
    def sampler_settings(self) -> SamplerSettings:
        """What of it concerns the head's sampler."""
        return SamplerSettings(num_steps=self.num_head_steps, backend=self.head_backend, options=self.head_options)


@attrs.frozen(kw_only=True)
class GenerationProgress:
    """What a callback is told after each step."""

    step: int
    num_steps: int
    tokens: Shaped[Tensor, "batch length *token"]
    known: Bool[Tensor, "batch length"]


@runtime_checkable
class HiddenReader(Protocol):
    """Reads hidden vectors of positions, given what is known so far."""

    skips_rows: bool
    """Whether `read` can be asked about the first rows alone, leaving the others out at no loss."""

    def read(self, positions: Int[Tensor, "rows positions"]) -> Float[Tensor, "rows positions width"]:
        """One hidden vector per position that is to be predicted now."""
        ...

    def write(self, positions: Int[Tensor, "rows kept"], tokens: Shaped[Tensor, "rows kept *token"]) -> None:
        """Tokens of positions that are known from now on."""
        ...


class CanvasReader:
    """Bidirectional: one pass over the whole canvas for each step."""

    skips_rows = True

    def __init__(
        self,
        model: FluidModel,
        text: list[TextKeysValues],
        tokens: Shaped[Tensor, "rows length *token"],
        known: Bool[Tensor, "rows length"],
    ) -> None:
        self._model, self._text = model, text
        self._tokens, self._known = tokens.clone(), known.clone()

    def read(self, positions: Int[Tensor, "rows positions"]) -> Float[Tensor, "rows positions width"]:
        """Hidden vectors that see every known token; of the first rows, if there are positions for no more."""
        count = len(positions)
        rows = self._model.token_embedding.canvas(self._tokens[:count], self._known[:count])
        text = [TextKeysValues(*(part[:count] for part in block)) for block in self._text]
        hidden = self._model.transformer(rows, text, causal=False)
        return _at(hidden, positions)

    def write(self, positions: Int[Tensor, "rows kept"], tokens: Shaped[Tensor, "rows kept *token"]) -> None:
        """Put tokens on the canvas."""
        _put(self._tokens, positions, tokens)
        _put(self._known, positions, torch.ones_like(positions, dtype=torch.bool))


class SequenceReader:
    """Causal: rows go into a key/value cache once, when their next position is final.

    The last known token waits outside the cache. Asked about one position, its row is committed with that target.
    Asked about several, a row for each target queries the cache and none is kept; the tokens drawn are then committed
    in the order they were proposed, so that every row is one the model was trained on.
    """

    skips_rows = False

    def __init__(
        self,
        model: FluidModel,
        text: list[TextKeysValues],
        tokens: Shaped[Tensor, "rows length *token"],
        known: Bool[Tensor, "rows length"],
    ) -> None:
        self._embed, self._transformer, self._text = model.token_embedding, model.transformer, text
        self._caches = model.transformer.caches(tokens.shape[0], tokens.shape[1])
        self._last: tuple[Tensor, Tensor] | None = None
        self._committed_to: Tensor | None = None
        num_known = int(known[0].sum())
        if num_known:
            positions = _known_first(model, known)[:, :num_known]
            self.write(positions, _at(tokens, positions))

    def read(self, positions: Int[Tensor, "rows positions"]) -> Float[Tensor, "rows positions width"]:
        """Hidden vectors that see every known token."""
        if positions.shape[1] == 1:
            hidden = self._transformer.extend(self._row(positions), self._text, self._caches)
            self._committed_to = positions
            return hidden
        rows = torch.cat([self._row(positions[:, i : i + 1]) for i in range(positions.shape[1])], dim=1)
        return self._transformer.query(rows, self._text, self._caches)

    def write(self, positions: Int[Tensor, "rows kept"], tokens: Shaped[Tensor, "rows kept *token"]) -> None:
        """Commit tokens one after the other; the last of them waits for its next position."""
        rows = []
        if self._committed_to is None:
            rows.append(self._row(positions[:, :1]))
        elif not torch.equal(self._committed_to, positions[:, :1]):
            raise InvalidRequestError(
                "A causal order proposed one position and kept another; a cached sequence can not take that back."
            )
        if positions.shape[1] > 1:
            rows.append(self._embed.following(tokens[:, :-1], positions[:, :-1], positions[:, 1:]))
        if rows:
            self._transformer.extend(torch.cat(rows, dim=1), self._text, self._caches)
        self._committed_to = None
        self._last = (tokens[:, -1:], positions[:, -1:])

    def _row(self, target: Int[Tensor, "rows 1"]) -> Float[Tensor, "rows 1 width"]:
        if self._last is None:
            return self._embed.start(target)
        return self._embed.following(*self._last, target)


def _known_first(model: FluidModel, known: Bool[Tensor, "rows length"]) -> Int[Tensor, "rows length"]:
    """Positions in the order of a causal sequence: known tokens come first, each kind in the order of training.

    Where a model was trained over any permutation, known tokens are in raster order among themselves.
    """
    ranks = torch.arange(known.shape[1], device=known.device)
    if model.order.trained_permutations is TrainedPermutations.FIXED:
        grid = model.tokenizer.token_space.grid
        # A fixed permutation is the same for every image: one drawn from any generator tells it.
        view = model.order.training_view(1, grid, generator=torch.Generator(), device=known.device)
        ranks = view.order[0].argsort()
    return (ranks + known.shape[1] * ~known).argsort(dim=1)


def check_order(model: FluidModel, order: OrderPolicy) -> None:
    """Raise `IncompatibleComponentsError` unless a model trained with its own order can sample in `order`.

    A model over one fixed permutation follows its own. One over any permutation follows every order of its own
    attention. A causal one also follows bidirectional orders, from its cache: whichever positions come next, predicting
    each from the tokens that are known is what it learned.
    """
    own = model.order
    same_order = type(order) is type(own) and _options(order) == _options(own)
    attention_fits = own.attention in (order.attention, AttentionPattern.CAUSAL)
    if not same_order and not (own.trained_permutations is TrainedPermutations.ANY and attention_fits):
        other_options = " with other options" if type(order) is type(own) else ""
        raise IncompatibleComponentsError(
            f"The model was trained with {own.attention} attention over {own.trained_permutations} permutations "
            f"({type(own).__name__}) and can not sample with {type(order).__name__}{other_options}, which needs "
            f"{order.attention} attention over {order.trained_permutations} permutations. Use an order the "
            "model was trained for."
        )
    check_confidence(order, model.head)  # type: ignore[arg-type]


def _options(order: OrderPolicy) -> object:
    """The options of an order, if it has some: with other ones a fixed order may be another permutation."""
    options = getattr(order, "options", None)
    return options if attrs.has(type(options)) else None


@torch.no_grad()
def generate(
    model: FluidModel,
    text: AlignedText,
    *,
    random: KeyedRandom,
    negative: AlignedText | None = None,
    settings: GenerationSettings | None = None,
    order: OrderPolicy | None = None,
    sampler: ChosenSampler | None = None,
    tokens: Shaped[Tensor, "batch length *token"] | None = None,
    known: Bool[Tensor, "batch length"] | None = None,
    callback: Callable[[GenerationProgress], None] | None = None,
) -> Shaped[Tensor, "batch length *token"]:
    """Tokens of one image per row of `text`.

    `random` has one row per image. `negative` is the text to move away from under guidance; by default no text.
    `order` replaces the model's own where it was trained for that. `sampler` is what `build_sampler` made of
    `settings.sampler_settings`, from a caller that wants to know what runs; by default it is made here. `tokens` and
    `known` (both or none) fix part of the images: what `tokens` holds elsewhere makes no difference, and every image
    must have the same number of known tokens. `callback` is told the state after each step.

    Raises `InvalidRequestError`, `InvalidTokensError` or `IncompatibleComponentsError` for a request that order, head
    or model can not honour, and `InvalidComponentError` for an order that breaks its contract.
    """
    settings = settings or GenerationSettings()
    order = order or model.order
    check_order(model, order)
    space = model.tokenizer.token_space
    batch_size = text.states.shape[0]
    if random.num_rows != batch_size or (negative is not None and negative.states.shape[0] != batch_size):
        raise InvalidRequestError(
            f"Expected one row of random numbers and of negative text for each of the {batch_size} rows of text, found "
            f"{random.num_rows} and {'no negative text' if negative is None else negative.states.shape[0]}."
        )
    # What order and head refuse, they refuse before anything is computed.
    sampler = sampler or build_sampler(model.head, settings.sampler_settings, order=order)  # type: ignore[arg-type]
    confident = sampler.sampler if isinstance(sampler.sampler, ConfidentSampler) else None
    if not isinstance(order, UsesConfidence):
        confident = None
    elif order.needs_confidence and confident is None:
        raise InvalidRequestError(
            f"The order {type(order).__name__} needs a sampler that tells its confidence, found a "
            f"{type(sampler.sampler).__name__}. Build it with build_sampler(..., order=order)."
        )
    tokens, known = _canvas(model, batch_size, tokens, known)
    if batch_size == 0 or bool(known.all()):
        return tokens
    steps = order.generation(~known, space.grid, num_steps=settings.num_steps, random=random.child(0))

    guided = settings.guidance.active
    if guided:
        text = _stack(text, negative or model.unconditional_text(batch_size))
    reader = _reader(model, text, *((_twice(tokens), _twice(known)) if guided else (tokens, known)))
    step = 0
    while (positions := steps.propose()) is not None:
        num_known = int(known[0].sum())
        # Steps that do not say how many tokens they will keep count as keeping all that they propose.
        num_new = steps.num_kept if isinstance(steps, AnnouncesKept) else positions.shape[1]
        share_after = (num_known + num_new) / space.grid.length
        guided_now = guided and settings.guidance.on(share_after)
        hidden = reader.read(_twice(positions) if guided_now or (guided and not reader.skips_rows) else positions)
        guidance = None
        if guided_now:
            scale = hidden.new_full((positions.numel(),), settings.guidance.at(share_after))
            guidance = Guidance(negative=hidden[batch_size:].flatten(0, 1), scale=scale)
        request = SamplingRequest(
            # A position proposed again, because an order did not keep it, gets fresh numbers.
            random=random.child(1 + step).children(positions),
            temperature=settings.temperature,
            guidance=guidance,
            progress=num_known / space.grid.length,
        )
        confidence = None
        if confident is None:
            drawn = sampler.sampler(hidden[:batch_size].flatten(0, 1), request)
        else:
            drawn, confidence = confident.with_confidence(hidden[:batch_size].flatten(0, 1), request)
            confidence = confidence.view(positions.shape)
        drawn = drawn.reshape(*positions.shape, *space.token_shape)
        keep = steps.accept(confidence)
        num_kept = _num_kept(keep, order)
        kept_positions = positions[keep].view(batch_size, num_kept)
        kept_tokens = drawn[keep].view(batch_size, num_kept, *space.token_shape)
        _put(tokens, kept_positions, kept_tokens)
        _put(known, kept_positions, torch.ones_like(kept_positions, dtype=torch.bool))
        reader.write(*((_twice(kept_positions), _twice(kept_tokens)) if guided else (kept_positions, kept_tokens)))
        step += 1
        if callback is not None:
            # Copies: the loop goes on writing to its own.
            callback(
                GenerationProgress(step=step, num_steps=steps.num_steps, tokens=tokens.clone(), known=known.clone())
            )
    return tokens


def _canvas(
    model: FluidModel, batch_size: int, tokens: Tensor | None, known: Tensor | None
) -> tuple[Tensor, Bool[Tensor, "batch length"]]:
    """The tokens and what is known of them before the first step: copies, checked."""
    space, device = model.tokenizer.token_space, model.device
    empty = space.empty(batch_size, device)
    if tokens is None and known is None:
        return empty, torch.zeros(empty.shape[:2], dtype=torch.bool, device=device)
    if tokens is None or known is None:
        raise InvalidRequestError(
            "Expected tokens and known together: which positions are known, and what stands there. Found one of them."
        )
    if tokens.shape != empty.shape or known.shape != empty.shape[:2]:
        raise InvalidRequestError(
            f"Expected tokens of shape {tuple(empty.shape)} and known of shape {tuple(empty.shape[:2])} for "
            f"{batch_size} images of this model, found {tuple(tokens.shape)} and {tuple(known.shape)}."
        )
    tokens, known = tokens.to(device), known.to(device)
    counts = known.sum(dim=1)
    if batch_size and not bool((counts == counts[0]).all()):
        raise InvalidRequestError(
            f"Expected the same number of known tokens in every image of a batch, found {counts.tolist()}. "
            "Generate images with different numbers in separate calls."
        )
    space.validate(tokens[known])
    empty[known] = tokens[known].to(empty.dtype)
    return empty, known.clone()


def _num_kept(keep: Bool[Tensor, "batch positions"], order: OrderPolicy) -> int:
    """How many of the proposed tokens each image keeps. Raises `InvalidComponentError` if that is none, or differs."""
    counts = sorted(set(keep.sum(dim=1).tolist()))
    if len(counts) != 1 or counts[0] == 0:
        raise InvalidComponentError(
            f"The order {type(order).__name__} kept {counts} of {keep.shape[1]} proposed tokens, expected the same "
            "number for every image of the batch, and at least one. Report this to the authors of the order."
        )
    return int(counts[0])


def _reader(model: FluidModel, text: AlignedText, tokens: Tensor, known: Tensor) -> HiddenReader:
    keys_values = model.transformer.text(text.states, text.mask)
    causal = model.order.attention is AttentionPattern.CAUSAL
    return (SequenceReader if causal else CanvasReader)(model, keys_values, tokens, known)


def _stack(text: AlignedText, negative: AlignedText) -> AlignedText:
    """Both texts in one batch, padded to the longer."""
    length = max(text.states.shape[1], negative.states.shape[1])

    def padded(part: AlignedText) -> tuple[Tensor, Tensor]:
        extra = length - part.states.shape[1]
        return (
            torch.nn.functional.pad(part.states, (0, 0, 0, extra)),
            torch.nn.functional.pad(part.mask, (0, extra), value=False),
        )

    (states, mask), (negative_states, negative_mask) = padded(text), padded(negative)
    return AlignedText(states=torch.cat([states, negative_states]), mask=torch.cat([mask, negative_mask]))


def _twice(tensor: Tensor) -> Tensor:
    return torch.cat([tensor, tensor])


def _at(tensor: Tensor, positions: Tensor) -> Tensor:
    batch = torch.arange(tensor.shape[0], device=tensor.device)[:, None]
    return tensor[batch, positions]


def _put(tensor: Tensor, positions: Tensor, values: Tensor) -> None:
    batch = torch.arange(tensor.shape[0], device=tensor.device)[:, None]
    tensor[batch, positions] = values
