"""What a token is: its shape, its values, and how it enters the backbone.

A tokenizer states the space its tokens live in; a head states the space it predicts. The two must be equal.
Two spaces cover the paper (section 3): continuous vectors of a VAE and ids of a VQGAN's codebook. A plugin may
define its own by subclassing `TokenSpace`.
"""

import math
from abc import ABC, abstractmethod

import attrs
import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from fluid_core.errors import InvalidTokensError


@attrs.frozen(kw_only=True)
class Grid:
    """The arrangement of an image's tokens: `height` rows of `width` tokens, numbered in raster order."""

    height: int = attrs.field(validator=attrs.validators.gt(0))
    width: int = attrs.field(validator=attrs.validators.gt(0))

    @property
    def length(self) -> int:
        """Number of tokens in one image."""
        return self.height * self.width


class TokenSpace(ABC):
    """The set of values one token can take, and the grid the tokens of an image form."""

    grid: Grid

    @property
    @abstractmethod
    def kind(self) -> str:
        """The word that declarations of plugins use for this space, such as `continuous` or `discrete`."""

    @property
    @abstractmethod
    def token_shape(self) -> tuple[int, ...]:
        """Shape of ONE token: `(channels,)` for vectors, `()` for ids."""

    @property
    @abstractmethod
    def dtype(self) -> torch.dtype:
        """Type of the token tensor."""

    @abstractmethod
    def embedding(self, width: int) -> nn.Module:
        """A new module that maps tokens `batch length *token` to vectors `batch length width`."""

    @abstractmethod
    def validate(self, tokens: Tensor) -> None:
        """Raise `InvalidTokensError` unless the trailing axes, type and values are those of this space."""

    def empty(self, batch_size: int, device: torch.device | str = "cpu") -> Shaped[Tensor, "batch length *token"]:
        """A canvas of zeros for `batch_size` images; what it holds at unknown positions has no meaning."""
        return torch.zeros(batch_size, self.grid.length, *self.token_shape, dtype=self.dtype, device=device)

    def _validate_shape(self, tokens: Tensor) -> None:
        num_axes = len(self.token_shape)
        found = tuple(tokens.shape[tokens.ndim - num_axes :]) if num_axes else ()
        if tokens.ndim < num_axes or found != self.token_shape:
            raise InvalidTokensError(
                f"Expected {self.kind} tokens whose last axes are {self.token_shape}, found a tensor of shape "
                f"{tuple(tokens.shape)}. Check that tokenizer and head were built for the same token space."
            )


@attrs.frozen(kw_only=True)
class ContinuousTokens(TokenSpace):
    """Vectors of `channels` real numbers, about zero mean and unit variance once a tokenizer normalised them."""

    grid: Grid
    channels: int = attrs.field(validator=attrs.validators.gt(0))

    @property
    def kind(self) -> str:
        """`continuous`."""
        return "continuous"

    @property
    def token_shape(self) -> tuple[int, ...]:
        """`(channels,)`."""
        return (self.channels,)

    @property
    def dtype(self) -> torch.dtype:
        """`torch.float32`: heads compute losses and samples in single precision."""
        return torch.float32

    def embedding(self, width: int) -> nn.Module:
        """A linear projection."""
        return nn.Linear(self.channels, width)

    def validate(self, tokens: Tensor) -> None:
        """Raise `InvalidTokensError` unless `tokens` are finite real vectors of `channels` values."""
        self._validate_shape(tokens)
        if not tokens.is_floating_point():
            raise InvalidTokensError(f"Expected continuous tokens of a floating type, found {tokens.dtype}.")
        if not bool(torch.isfinite(tokens).all()):
            count = int((~torch.isfinite(tokens)).sum())
            raise InvalidTokensError(
                f"Expected finite continuous tokens, found {count} values that are NaN or infinite."
            )


class ScaledEmbedding(nn.Embedding):
    """A table of small rows whose look-up is scaled up to vectors of unit variance.

    One table can then serve both ends of a model: looked up, its vectors have unit scale; as the output matrix of a
    softmax head, its logits start small (standard deviation 1/2 for hidden vectors of unit scale).
    """

    def __init__(self, num_embeddings: int, width: int) -> None:
        super().__init__(num_embeddings, width)
        self.scale = 2.0 * math.sqrt(width)

    def reset_parameters(self) -> None:
        """Normal rows of expected norm 1/2."""
        nn.init.normal_(self.weight, std=0.5 / math.sqrt(self.embedding_dim))

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - the name torch gives it
        """Vectors `batch length width` of ids `batch length`."""
        return super().forward(input) * self.scale


@attrs.frozen(kw_only=True)
class DiscreteTokens(TokenSpace):
    """Ids of a codebook, from 0 to `vocabulary_size - 1`."""

    grid: Grid
    vocabulary_size: int = attrs.field(validator=attrs.validators.gt(1))

    @property
    def kind(self) -> str:
        """`discrete`."""
        return "discrete"

    @property
    def token_shape(self) -> tuple[int, ...]:
        """`()`: an id is a scalar."""
        return ()

    @property
    def dtype(self) -> torch.dtype:
        """`torch.int64`."""
        return torch.int64

    def embedding(self, width: int) -> "ScaledEmbedding":
        """A table with one row per id; a softmax head may share its weight (paper, section 3)."""
        return ScaledEmbedding(self.vocabulary_size, width)

    def validate(self, tokens: Tensor) -> None:
        """Raise `InvalidTokensError` unless `tokens` are integers inside the vocabulary."""
        self._validate_shape(tokens)
        if tokens.dtype != self.dtype:
            raise InvalidTokensError(f"Expected discrete tokens of type {self.dtype}, found {tokens.dtype}.")
        if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= self.vocabulary_size):
            raise InvalidTokensError(
                f"Expected token ids from 0 to {self.vocabulary_size - 1}, found ids from {int(tokens.min())} to "
                f"{int(tokens.max())}. The tokens come from a larger vocabulary than the model's."
            )
