"""What the protocols pass to each other: small immutable values, all of them plain data."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import attrs
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from fluid_core.errors import InvalidRequestError
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import TokenSpace


class AttentionPattern(StrEnum):
    """Which tokens a prediction may look at (paper, figure 2)."""

    CAUSAL = "causal"
    """Each token sees the ones before it in the order; a key/value cache makes generation cheap."""

    BIDIRECTIONAL = "bidirectional"
    """Every token sees all known ones; unknown positions hold a mask token."""


class TrainedPermutations(StrEnum):
    """Over which orders of the tokens a model learns, which decides what it can be asked at sampling."""

    FIXED = "fixed"
    """One permutation, the same for every image."""

    ANY = "any"
    """Permutations drawn at random: the model can start from any set of known tokens."""


@attrs.frozen(kw_only=True, eq=False)
class TrainingView:
    """What a training step shows and what it predicts: a permutation plus a cut.

    A bidirectional model is shown the tokens at `order[:, :num_known]` and predicts all others at once. A causal
    model has `num_known` zero and predicts every token from the ones before it in `order`.
    """

    order: Int[Tensor, "batch length"]
    num_known: Int[Tensor, "batch"]

    def predicted(self) -> Bool[Tensor, "batch length"]:
        """True at the positions (in raster order) whose tokens are predicted."""
        ranks = self.order.argsort(dim=1)
        return ranks >= self.num_known[:, None]

    @property
    def num_predicted(self) -> int:
        """How many tokens are predicted in all."""
        return self.order.numel() - int(self.num_known.sum())

    def share(self, rows: slice) -> "TrainingView":
        """The view of some rows of the batch."""
        return TrainingView(order=self.order[rows], num_known=self.num_known[rows])


@attrs.frozen(kw_only=True, eq=False)
class TextFeatures:
    """Encoded prompts: one state per text token, and which of them are real (True) rather than padding."""

    states: Float[Tensor, "batch text_length text_width"]
    mask: Bool[Tensor, "batch text_length"]


@attrs.frozen(kw_only=True, eq=False)
class EncodedBatch:
    """Training images as the tokenizer stores them, with their captions: what a cache on disk holds.

    `text` is None where the captions are still to be encoded, as for a text encoder that trains with the model.
    """

    precomputed: dict[str, Tensor]
    """What `Tokenizer.precompute` returned, with the batch as first axis of every tensor."""

    captions: tuple[str, ...]
    text: TextFeatures | None = None


@attrs.frozen(kw_only=True)
class BatchShare:
    """Which rows of a training batch this process takes: `count` from row `first` on, of `total`.

    Everything random is drawn for the whole batch before the share is taken, so that several processes together
    compute what one would.
    """

    first: int
    count: int
    total: int
    process: int = 0
    """Which process this is of `num_processes`: streams divide their shards by it."""

    num_processes: int = 1

    @property
    def rows(self) -> slice:
        """The rows as a slice of the whole batch."""
        return slice(self.first, self.first + self.count)


@attrs.frozen(kw_only=True, eq=False)
class TokenLoss:
    """Loss of each token, unreduced: core sums and counts, since the number of predicted tokens varies.

    `total` is what training minimises; `parts` are detached components of it to log, such as `mse` and `vb`.
    """

    total: Float[Tensor, "tokens"]
    parts: dict[str, Float[Tensor, "tokens"]] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True, eq=False)
class ReconstructionLoss:
    """How well a tokenizer gives back a batch of images: `total` is what its training minimises.

    `parts` are detached components of it to log, such as `l1` and `kl`.
    """

    total: Float[Tensor, ""]
    reconstruction: Float[Tensor, "batch 3 height width"]
    """With gradients, so that a trainer can add terms of its own."""

    parts: dict[str, Float[Tensor, ""]] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True, eq=False)
class MeasuredChannels:
    """Mean and standard deviation of each token channel over a data set, and what they were measured on."""

    mean: Float[Tensor, "channels"]
    std: Float[Tensor, "channels"]
    num_vectors: int
    num_images: int
    source: str
    """Which images, in words."""


@attrs.frozen(kw_only=True)
class Guidance:
    """Classifier-free guidance as data: how a head mixes the two predictions is the head's own business.

    `negative` are the hidden vectors computed without the text (or with a negative prompt), `scale` how far to
    move from them towards the conditional ones: 1 is the conditional prediction itself.
    """

    negative: Float[Tensor, "tokens width"]
    scale: Float[Tensor, "tokens"]


@attrs.frozen(kw_only=True)
class SamplingRequest:
    """One call of a sampler: everything but the hidden vectors.

    `random` has one row per token. `temperature` is 0 or more; 1 samples the learned distribution. `progress` is
    the share of the image's tokens known before this step, so that a head can spend its effort unevenly.
    """

    random: KeyedRandom
    temperature: float = 1.0
    guidance: Guidance | None = None
    progress: float = 0.0


class SamplerBackend(StrEnum):
    """Which implementation of a head's sampler runs: both draw the same tokens from the same random numbers."""

    AUTO = "auto"
    """The fused one where there is one for the request and the device, else the reference."""

    REFERENCE = "reference"
    """The eager one that reads like the equations."""

    FUSED = "fused"
    """The fast one; refused where there is none."""


def sampler_backend(value: str | SamplerBackend) -> SamplerBackend:
    """The backend of that name. Raises `InvalidRequestError` for a name that none has."""
    try:
        return SamplerBackend(value)
    except ValueError:
        choices = ", ".join(backend.value for backend in SamplerBackend)
        raise InvalidRequestError(f"The backend of a sampler is one of {choices}; found '{value}'.") from None


@attrs.frozen(kw_only=True)
class SamplerSettings:
    """What stays the same over a whole generation, known when a head prepares its sampler.

    `num_steps` is the number of steps a head with an iterative sampler takes per token, each of one evaluation or of
    as many as its solver makes; None is the head's own default. Heads that draw a token at once refuse any other
    value. `options` replaces some of the options the head was built with for this generation; a head that has such
    options says which (`AdjustableSampling`).

    Raises `InvalidRequestError` for an unknown backend.
    """

    num_steps: int | None = None
    backend: SamplerBackend = attrs.field(default=SamplerBackend.AUTO, converter=sampler_backend)
    options: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class HeadContext:
    """What a head is built for: the tokens it predicts, and the width of the vectors it is conditioned on.

    `token_embedding` is the module that embeds tokens at the backbone's input. A head may tie its weights to it,
    holding a reference that is NOT a registered submodule, so that the weight is saved and updated once.
    """

    token_space: TokenSpace
    width: int
    token_embedding: nn.Module


@attrs.frozen(kw_only=True)
class DatasetContext:
    """What a data set is built for: pictures of `image_size` (height, width), and which part of the data."""

    image_size: tuple[int, int]
    split: str = attrs.field(default="train", validator=attrs.validators.in_(("train", "validation")))
    seed: int = 0
