"""The contracts between the parts of an autoregressive image model. Read this file first.

An image is a grid of tokens. A **tokenizer** turns an image into tokens and back. An **order** decides which tokens
are predicted at which step and what each prediction may look at. The backbone turns the visible tokens and the text
into one hidden vector per position. A **head** turns one hidden vector into a distribution over one token: a loss to
train with and a sampler to generate with. A **text encoder** turns prompts into what the backbone attends to.

Tokenizers, heads and text encoders are also `torch.nn.Module`s, so that they move, save and shard with the model;
`FluidModel` checks this when the parts are joined. New abilities come as separate small protocols, never as new
required methods here.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from fluid_core.exchange import (
    AttentionPattern,
    BatchShare,
    MeasuredChannels,
    ReconstructionLoss,
    SamplerBackend,
    SamplerSettings,
    SamplingRequest,
    TextFeatures,
    TokenLoss,
    TrainedPermutations,
    TrainingView,
)
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import Grid, TokenSpace


@runtime_checkable
class Tokenizer(Protocol):
    """Images to tokens and back (paper, section 3: a VQGAN or a VAE, frozen while the model trains)."""

    token_space: TokenSpace
    image_size: tuple[int, int]
    """Height and width, in pixels, of the images it takes and makes."""

    def precompute(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """The expensive and deterministic part of encoding: what a cache on disk stores.

        `images` are in [-1, 1]. Every tensor returned has the batch as its first axis: ids for a discrete tokenizer,
        the moments of the posterior (rather than one sample of it) for a variational one.
        """
        ...

    def tokens(
        self, precomputed: Mapping[str, Tensor], *, random: KeyedRandom
    ) -> Shaped[Tensor, "batch length *token"]:
        """Tokens in raster order from what `precompute` returned, with latent statistics applied.

        `random` has one row per image; tokenizers whose encoding is deterministic leave it alone.
        """
        ...

    def decode(self, tokens: Shaped[Tensor, "batch length *token"]) -> Float[Tensor, "batch 3 height width"]:
        """Images in [-1, 1]."""
        ...


@runtime_checkable
class LearnsFromImages(Protocol):
    """Ability of a tokenizer that measures or fits something on training images before the model trains."""

    @property
    def fitted(self) -> bool:
        """False until `fit` was called or fitted state was loaded."""
        ...

    def fit(self, images: Float[Tensor, "batch 3 height width"], *, seed: int) -> None:
        """Learn from a few thousand images in [-1, 1]; the result is part of the module's state."""
        ...


@runtime_checkable
class TrainsOnImages(Protocol):
    """Ability of a tokenizer that is itself a model to train, such as an autoencoder (`fluid tokenizer train`)."""

    def reconstruction_loss(
        self,
        images: Float[Tensor, "batch 3 height width"],
        *,
        generator: torch.Generator,
        share: BatchShare | None = None,
    ) -> ReconstructionLoss:
        """Encode and decode images in [-1, 1], with gradients; the loss is a mean over images.

        `generator` lives on the CPU. With `share`, `images` are this process's rows of a batch, and `generator` is the
        same in all processes: what is random is drawn for the whole batch, and its rows taken.
        """
        ...

    def after_step(self, *, generator: torch.Generator) -> dict[str, float]:
        """Called after each update of the weights: upkeep such as reviving unused codes, and figures to log.

        Of several processes, all must come to the same weights and the same figures.
        """
        ...


@runtime_checkable
class StoredApart(Protocol):
    """Ability of a tokenizer with a folder of its own for its weights, in a format that other programs read.

    A saved model holds a copy of that folder instead of the weights, and the option is made to point to it.
    """

    @property
    def folder_option(self) -> str:
        """Name of the option that says where the folder is."""
        ...

    @property
    def superseded_options(self) -> tuple[str, ...]:
        """Names of further options that say where its files are, which mean nothing for a copy in one folder."""
        ...

    @property
    def stored_modules(self) -> tuple[str, ...]:
        """Names of the submodules whose weights are in that folder; none for a tokenizer that came from no folder.

        One without such modules is saved with the model, as if it did not have this ability.
        """
        ...

    def save_pretrained(self, folder: Path) -> None:
        """Write the folder, which exists and is empty, so that an equal tokenizer can be built from it."""
        ...


@runtime_checkable
class MeasuresLatents(Protocol):
    """Ability of a tokenizer that keeps statistics of each token channel in a file (`fluid tokenizer measure`)."""

    @property
    def statistics_file(self) -> Path | None:
        """The file from which its statistics are read, whether it exists or not; None if it has no place of its own."""
        ...

    @property
    def own_scale(self) -> float | None:
        """The factor its own configuration scales latents by; None if it has none, or one for each channel."""
        ...

    def unnormalized_tokens(
        self, precomputed: Mapping[str, Tensor], *, random: KeyedRandom
    ) -> Float[Tensor, "batch length channels"]:
        """What `tokens` returns, before the statistics are applied; `own_scale` is."""
        ...

    def adopt_statistics(self, measured: MeasuredChannels) -> None:
        """Use these statistics from now on. Raises `CheckpointMismatchError` for another number of channels."""
        ...

    def save_statistics(self, file: Path) -> None:
        """Write the statistics in use, whole or not at all. Raises `OutputError` if that is impossible."""
        ...


@runtime_checkable
class Identified(Protocol):
    """Ability of a tokenizer or text encoder to say which it is: caches and statistics are refused by any other."""

    def identity(self) -> str:
        """A hash, in hexadecimal, of the configuration and the weights that what it computes depends on.

        Statistics that `tokens` applies are no part of it, so that measuring anew keeps a cache valid.
        """
        ...


@runtime_checkable
class Sampler(Protocol):
    """Draws tokens, for the length of one generation: weights packed and tables built once."""

    def __call__(
        self, condition: Float[Tensor, "tokens width"], request: SamplingRequest
    ) -> Shaped[Tensor, "tokens *token"]:
        """One token for every hidden vector. Rows are independent: no token sees another."""
        ...


@runtime_checkable
class Head(Protocol):
    """The distribution of one token given one hidden vector (paper, section 3).

    A head sees a flat list of tokens, never a batch, a mask or a grid: core gathers the positions to predict.
    """

    token_space: TokenSpace

    def loss(
        self,
        condition: Float[Tensor, "tokens width"],
        target: Shaped[Tensor, "tokens *token"],
        *,
        random: KeyedRandom,
    ) -> TokenLoss:
        """The training loss of each token, unreduced and finite. `random` has one row per token."""
        ...

    def sampler(self, settings: SamplerSettings) -> Sampler:
        """A sampler for one generation. Raises `InvalidRequestError` for settings the head can not honour."""
        ...


@runtime_checkable
class ExemptFromWeightDecay(Protocol):
    """Ability of any module inside a trained part: it names parameters of its own that weight decay leaves alone.

    Vectors and the tables of `nn.Embedding` are left alone without being named.
    """

    def no_weight_decay(self) -> Collection[str]:
        """Names as `named_parameters` of this module gives them, such as `table` or `codes.weight`."""
        ...


@runtime_checkable
class AdjustableSampling(Protocol):
    """Ability of a head whose sampling options can be replaced for one generation, by `SamplerSettings.options`.

    Core refuses options that are not named here, and all options for a head without this ability.
    """

    @property
    def sampling_options(self) -> frozenset[str]:
        """Names of the options that concern sampling alone, such as a solver or a limit on the vocabulary."""
        ...


@runtime_checkable
class ReportsBackend(Protocol):
    """Ability of a sampler that has a fused implementation: it says which one runs.

    A sampler that does not say runs its reference.
    """

    @property
    def backend(self) -> SamplerBackend:
        """`reference` or `fused`."""
        ...


@runtime_checkable
class ConfidentSampler(Sampler, Protocol):
    """Ability of a sampler that can tell how sure it is of each token it draws."""

    def with_confidence(
        self, condition: Float[Tensor, "tokens width"], request: SamplingRequest
    ) -> tuple[Shaped[Tensor, "tokens *token"], Float[Tensor, "tokens"]]:
        """The tokens that a call draws from the same numbers, and a finite number for each: the larger, the surer.

        Where the head has it, the log-probability of the token. It is that of the guided distribution at temperature
        1, so that it says something at temperature 0 as well.
        """
        ...


@runtime_checkable
class ConfidentHead(Protocol):
    """Ability of a head that can tell how sure it is of the tokens it draws (MaskGIT, arXiv 2202.04200)."""

    def confident_sampler(self, settings: SamplerSettings) -> ConfidentSampler:
        """As `sampler`, where confidence is asked for. Raises `InvalidRequestError` for settings it can not honour."""
        ...


@runtime_checkable
class GenerationSteps(Protocol):
    """The course of one generation: the sampling loop asks what to predict, and reports what it drew."""

    num_steps: int
    """How many steps this course takes at most, to show progress."""

    def propose(self) -> Int[Tensor, "batch positions"] | None:
        """Positions to sample now, the same number for every image; None when nothing is left."""
        ...

    def accept(self, confidence: Float[Tensor, "batch positions"] | None) -> Bool[Tensor, "batch positions"]:
        """Which of the proposed tokens to keep: the same number in every image, and at least one.

        `confidence` says how sure the head was of each (`ConfidentSampler`); it is None unless the order
        `UsesConfidence` and the head can tell. Orders fixed in advance keep all.
        """
        ...


@runtime_checkable
class AnnouncesKept(Protocol):
    """Ability of steps that keep only some of what they propose, and know how many: guidance schedules go by it."""

    @property
    def num_kept(self) -> int:
        """How many of the tokens just proposed `accept` will keep in each image."""
        ...


@runtime_checkable
class OrderPolicy(Protocol):
    """Which tokens are predicted when, and what each prediction may look at (paper, figure 2)."""

    attention: AttentionPattern
    trained_permutations: TrainedPermutations
    """What a model that trains with this order can be asked at sampling: for any order, or for this one alone."""

    def training_view(
        self, batch_size: int, grid: Grid, *, generator: torch.Generator, device: torch.device
    ) -> TrainingView:
        """What each image of a training batch shows and predicts, on `device`; `generator` lives on the CPU."""
        ...

    def generation(
        self, unknown: Bool[Tensor, "batch length"], grid: Grid, *, num_steps: int | None, random: KeyedRandom
    ) -> GenerationSteps:
        """The steps that fill the unknown positions, each exactly once and no step empty.

        All images of a batch have the same number of unknown positions. `num_steps` None is the order's default.
        `random` has one row per image. Raises `InvalidRequestError` for a number of steps the order can not take.
        """
        ...


@runtime_checkable
class UsesConfidence(Protocol):
    """Ability of an order whose steps decide by how sure the head is of each token.

    Its `accept` is told wherever the head is a `ConfidentHead`; other orders are never told, which costs nothing.
    """

    needs_confidence: bool
    """True if it can not decide without: it is refused with other heads. False if it then decides in another way."""


@runtime_checkable
class TextEncoder(Protocol):
    """Prompts to text states (paper, section 3: a frozen T5, followed by the trainable aligner of core)."""

    width: int
    max_length: int
    """Longest prompt, in the encoder's own tokens."""

    frozen: bool
    """True if the weights come from elsewhere and never train: a saved model names them, and holds no copy."""

    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        """States of each prompt, padded to the longest.

        Raises `PromptError` for an empty prompt. A prompt of more than `max_length` tokens is refused in the same way,
        or cut with a warning that says what was lost: never silently.
        """
        ...


@runtime_checkable
class EncodesEmptyPrompt(Protocol):
    """Ability of a text encoder that has states for a prompt without words, to stand for "no text"."""

    def encode_empty(self) -> TextFeatures:
        """States of the empty prompt: a batch of one row."""
        ...


@runtime_checkable
class FeatureNetwork(Protocol):
    """A fixed network that describes pictures: for Frechet distances and for perceptual losses.

    Like other parts it is also a `torch.nn.Module`, whose weights are frozen and which stays in evaluation mode.
    """

    name: str
    """Which network and which weights, in words that stand beside every figure measured with it."""

    width: int
    """Length of a feature vector."""

    def features(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch features"]:
        """One vector for each image with values in [-1, 1], of any size from 32 pixels."""
        ...

    def maps(self, images: Float[Tensor, "batch 3 height width"]) -> tuple[Float[Tensor, "batch _ _ _"], ...]:
        """Activations of several layers from fine to coarse, with gradients towards the images.

        Raises `InvalidRequestError` for a network that has none to show.
        """
        ...
