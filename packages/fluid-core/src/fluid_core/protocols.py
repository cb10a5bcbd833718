"""The contracts between the parts of an autoregressive image model. Read this file first.

An image is a grid of tokens. A **tokenizer** turns an image into tokens and back. An **order** decides which tokens
are predicted at which step and what each prediction may look at. The backbone turns the visible tokens and the text
into one hidden vector per position. A **head** turns one hidden vector into a distribution over one token: a loss to
train with and a sampler to generate with. A **text encoder** turns prompts into what the backbone attends to.

Tokenizers, heads and text encoders are also `torch.nn.Module`s, so that they move, save and shard with the model;
`FluidModel` checks this when the parts are joined. New abilities come as separate small protocols, never as new
required methods here.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from fluid_core.exchange import (
    AttentionPattern,
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
class GenerationSteps(Protocol):
    """The course of one generation: the sampling loop asks what to predict, and reports what it drew."""

    num_steps: int
    """How many steps this course takes at most, to show progress."""

    def propose(self) -> Int[Tensor, "batch positions"] | None:
        """Positions to sample now, the same number for every image; None when nothing is left."""
        ...

    def accept(self, confidence: Float[Tensor, "batch positions"] | None) -> Bool[Tensor, "batch positions"]:
        """Which of the proposed tokens to keep. Orders fixed in advance keep all and ignore `confidence`.

        Core passes no confidence yet (always None), so an order must also decide without.
        """
        ...


@runtime_checkable
class OrderPolicy(Protocol):
    """Which tokens are predicted when, and what each prediction may look at (paper, figure 2)."""

    attention: AttentionPattern
    trained_permutations: TrainedPermutations
    """Saved with the model and compared when it is asked to sample in another order."""

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
class TextEncoder(Protocol):
    """Prompts to text states (paper, section 3: a frozen T5, followed by the trainable aligner of core)."""

    width: int
    max_length: int
    """Longest prompt, in the encoder's own tokens."""

    frozen: bool
    """True if the weights come from elsewhere and never train: a saved model names them, and holds no copy."""

    def encode(self, prompts: Sequence[str]) -> TextFeatures:
        """States of each prompt, padded to the longest. Raises `PromptError` for an empty or overlong prompt."""
        ...
