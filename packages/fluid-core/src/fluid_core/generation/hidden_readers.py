"""Hidden vectors of the positions that are predicted next, read as the attention pattern allows.

`CanvasReader` computes the whole canvas at every step, `SequenceReader` only the new rows of a cached causal sequence.
Both see the text once, and what comes before the first look at the text once for both halves of a guided batch.
"""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from fluid_core.backbone.attention import TextKeysValues
from fluid_core.exchange import AttentionPattern, TrainedPermutations
from fluid_core.generation.known_tokens import KnownTokens
from fluid_core.model import FluidModel
from fluid_core.text.text_aligner import AlignedText


class HiddenVectors(NamedTuple):
    """One hidden vector per position that is to be predicted, and under guidance one that saw the other text."""

    conditional: Float[Tensor, "batch positions width"]
    negative: Float[Tensor, "batch positions width"] | None


@runtime_checkable
class HiddenReader(Protocol):
    """Reads hidden vectors of positions, given what is known so far."""

    def read(self, positions: Int[Tensor, "batch positions"], *, guided: bool) -> HiddenVectors:
        """Hidden vectors that see every known token; those of the negative text too if `guided`."""
        ...

    def write(self, positions: Int[Tensor, "batch kept"], tokens: Shaped[Tensor, "batch kept *token"]) -> None:
        """Tokens of positions that are known from now on."""
        ...


def hidden_reader(
    model: FluidModel, text: AlignedText, negative: AlignedText | None, state: KnownTokens
) -> HiddenReader:
    """The reader for the model's attention pattern; with `negative`, of as many rows as `text`, for guidance."""
    both = text if negative is None else _stacked(text, negative)
    keys_values = model.transformer.text(both.states, both.mask)
    causal = model.order.attention is AttentionPattern.CAUSAL
    return (SequenceReader if causal else CanvasReader)(model, keys_values, state)


class CanvasReader:
    """Bidirectional: one pass over the whole canvas for each step."""

    def __init__(self, model: FluidModel, text: list[TextKeysValues], state: KnownTokens) -> None:
        self._model = model
        self._state = state.copy()
        self._both = text
        batch_size = len(state.known)
        self._text = [TextKeysValues(*(part[:batch_size] for part in block)) for block in text]

    def read(self, positions: Int[Tensor, "batch positions"], *, guided: bool) -> HiddenVectors:
        """Hidden vectors that see every known token; the negative ones are computed only if asked for."""
        rows = self._model.token_embedding.canvas(self._state.tokens, self._state.known)
        hidden = self._model.transformer.at(rows, self._both if guided else self._text, positions)
        return _halves(hidden, len(positions))

    def write(self, positions: Int[Tensor, "batch kept"], tokens: Shaped[Tensor, "batch kept *token"]) -> None:
        """Put tokens on the canvas."""
        self._state.put(positions, tokens)


class SequenceReader:
    """Causal: rows go into a key/value cache once, when their next position is final.

    Rows of known tokens wait until positions are asked about; then they are committed in the same pass. The last
    known token has no next position yet: it asks about each position in a row of its own, and of these rows only the
    first stays, as long as that position is the first to be kept. So every row is one the model was trained on, tokens
    drawn in one step are committed in the order they were proposed, and weights are read once per step.

    The negative half of a guided batch is kept current even while it is not asked for.
    """

    def __init__(self, model: FluidModel, text: list[TextKeysValues], state: KnownTokens) -> None:
        self._embed, self._transformer, self._text = model.token_embedding, model.transformer, text
        batch_size, length = state.known.shape
        self._caches = model.transformer.caches(batch_size, length, texts_per_row=len(text[0].keys) // batch_size)
        self._last: tuple[Tensor, Tensor] | None = None
        self._pending: list[Tensor] = []
        self._first_asked: Tensor | None = None
        if state.count:
            positions = _known_first(model, state.known)[:, : state.count]
            self.write(positions, state.at(positions))

    def read(self, positions: Int[Tensor, "batch positions"], *, guided: bool) -> HiddenVectors:
        """Hidden vectors that see every known token."""
        rows = torch.cat([*self._pending, self._questions(positions)], dim=1)
        num_questions = positions.shape[1]
        hidden = self._transformer.advance(rows, self._text, self._caches, num_questions=num_questions)
        self._pending, self._first_asked = [], positions[:, :1]
        vectors = _halves(hidden, len(positions))
        return vectors if guided else HiddenVectors(vectors.conditional, None)

    def write(self, positions: Int[Tensor, "batch kept"], tokens: Shaped[Tensor, "batch kept *token"]) -> None:
        """Tokens that follow one after the other; the last of them waits for its next position."""
        first = positions[:, :1]
        if self._first_asked is None or not torch.equal(self._first_asked, first):
            if self._first_asked is not None:
                for cache in self._caches:
                    cache.forget_last()
            self._pending.append(self._questions(first))
        self._first_asked = None
        if positions.shape[1] > 1:
            self._pending.append(self._embed.following(tokens[:, :-1], positions[:, :-1], positions[:, 1:]))
        self._last = (tokens[:, -1:], positions[:, -1:])

    def _questions(self, targets: Int[Tensor, "batch targets"]) -> Float[Tensor, "batch targets width"]:
        """A row for each target, of the last known token, or of the start where nothing is known."""
        if self._last is None:
            return self._embed.start(targets)
        token, position = self._last
        count = targets.shape[1]
        return self._embed.following(token.expand(-1, count, *token.shape[2:]), position.expand(-1, count), targets)


def _known_first(model: FluidModel, known: Bool[Tensor, "batch length"]) -> Int[Tensor, "batch length"]:
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


def _halves(hidden: Float[Tensor, "texts positions width"], batch_size: int) -> HiddenVectors:
    return HiddenVectors(hidden[:batch_size], hidden[batch_size:] if len(hidden) > batch_size else None)


def _stacked(text: AlignedText, negative: AlignedText) -> AlignedText:
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
