"""The one sampling loop, for every order and head.

An order proposes positions, the backbone gives one hidden vector for each, the head draws their tokens, the order says
which to keep.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from fluid_core.backbone.linear import packed_linears
from fluid_core.errors import InvalidComponentError, InvalidRequestError
from fluid_core.evaluation_mode import evaluation_mode
from fluid_core.exchange import Guidance, SamplingRequest
from fluid_core.generation.hidden_readers import HiddenVectors, hidden_reader
from fluid_core.generation.known_tokens import known_at_first
from fluid_core.generation.order_check import check_order
from fluid_core.generation.settings import GenerationProgress, GenerationSettings
from fluid_core.keyed_random import KeyedRandom
from fluid_core.model import FluidModel
from fluid_core.protocols import AnnouncesKept, ConfidentSampler, OrderPolicy, UsesConfidence
from fluid_core.sampler_choice import ChosenSampler, build_sampler
from fluid_core.text.text_aligner import AlignedText


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
    must have the same number of known tokens. `callback` is told the state after each step. The model evaluates
    meanwhile, whatever it did before.

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
    state = known_at_first(model, batch_size, tokens, known)
    if batch_size == 0 or bool(state.known.all()):
        return state.tokens
    steps = order.generation(~state.known, space.grid, num_steps=settings.num_steps, random=random.child(0))

    guided = settings.guidance.active
    with evaluation_mode(model), packed_linears(model.transformer):
        if guided:
            negative = negative or model.unconditional_text(batch_size)
        reader = hidden_reader(model, text, negative if guided else None, state)
        step = 0
        while (positions := steps.propose()) is not None:
            num_known = state.count
            # Steps that do not say how many tokens they will keep count as keeping all that they propose.
            num_new = steps.num_kept if isinstance(steps, AnnouncesKept) else positions.shape[1]
            share_after = (num_known + num_new) / space.grid.length
            hidden = reader.read(positions, guided=guided and settings.guidance.on(share_after))
            request = SamplingRequest(
                # A position proposed again, because an order did not keep it, gets fresh numbers.
                random=random.child(1 + step).children(positions),
                temperature=settings.temperature,
                guidance=_guidance(hidden, settings.guidance.at(share_after)),
                progress=num_known / space.grid.length,
            )
            condition = hidden.conditional.flatten(0, 1)
            confidence = None
            if confident is None:
                drawn = sampler.sampler(condition, request)
            else:
                drawn, confidence = confident.with_confidence(condition, request)
                confidence = confidence.view(positions.shape)
            drawn = drawn.reshape(*positions.shape, *space.token_shape)
            keep = steps.accept(confidence)
            num_kept = _num_kept(keep, order)
            kept_positions = positions[keep].view(batch_size, num_kept)
            kept_tokens = drawn[keep].view(batch_size, num_kept, *space.token_shape)
            state.put(kept_positions, kept_tokens)
            reader.write(kept_positions, kept_tokens)
            step += 1
            if callback is not None:
                # A copy: the loop goes on writing to its own.
                now = state.copy()
                callback(
                    GenerationProgress(
                        step=step,
                        num_steps=steps.num_steps,
                        tokens=now.tokens,
                        known=now.known,
                        kept=kept_positions.clone(),
                    )
                )
    return state.tokens


def _guidance(hidden: HiddenVectors, scale: float) -> Guidance | None:
    if hidden.negative is None:
        return None
    negative = hidden.negative.flatten(0, 1)
    # Hidden vectors may be in bfloat16, which would round a scale of 1.3 to 1.296875.
    scales = torch.full(negative.shape[:1], scale, dtype=torch.float32, device=negative.device)
    return Guidance(negative=negative, scale=scales)


def _num_kept(keep: Bool[Tensor, "batch positions"], order: OrderPolicy) -> int:
    """How many of the proposed tokens each image keeps. Raises `InvalidComponentError` if that is none, or differs."""
    counts = sorted(set(keep.sum(dim=1).tolist()))
    if len(counts) != 1 or counts[0] == 0:
        raise InvalidComponentError(
            f"The order {type(order).__name__} kept {counts} of {keep.shape[1]} proposed tokens, expected the same "
            "number for every image of the batch, and at least one. Report this to the authors of the order."
        )
    return int(counts[0])
