"""Tokens to test with, for the token spaces that core knows."""

import torch
from jaxtyping import Shaped
from torch import Tensor

from fluid_core.errors import InvalidComponentError
from fluid_core.token_space import ContinuousTokens, DiscreteTokens, Grid, TokenSpace


def example_token_space(kind: str) -> TokenSpace:
    """A small space of `kind`: `continuous` or `discrete`. Raises `InvalidComponentError` for another word."""
    grid = Grid(height=3, width=4)
    if kind == "continuous":
        return ContinuousTokens(grid=grid, channels=5)
    if kind == "discrete":
        return DiscreteTokens(grid=grid, vocabulary_size=11)
    raise InvalidComponentError(
        f"The suite knows no token space of kind '{kind}': define `token_space` in your subclass."
    )


def example_tokens(space: TokenSpace, count: int, *, generator: torch.Generator) -> Shaped[Tensor, "count *token"]:
    """`count` tokens drawn at random: normal vectors, or ids of the whole vocabulary.

    Raises `InvalidComponentError` for a space that is neither continuous nor discrete.
    """
    if isinstance(space, ContinuousTokens):
        return torch.randn(count, space.channels, generator=generator)
    if isinstance(space, DiscreteTokens):
        return torch.randint(space.vocabulary_size, (count,), generator=generator)
    raise InvalidComponentError(
        f"The suite can not make tokens of kind '{space.kind}': define `example_tokens` in your subclass."
    )


def invalid_tokens(space: TokenSpace, valid: Shaped[Tensor, "count *token"]) -> dict[str, Shaped[Tensor, "..."]]:
    """Tensors like `valid` that are no tokens of `space`, each under words that say why.

    Raises `InvalidComponentError` for a space that is neither continuous nor discrete.
    """
    if isinstance(space, ContinuousTokens):
        with_nan = valid.clone()
        with_nan[0, 0] = torch.nan
        return {
            "one channel too many": torch.cat([valid, valid[:, :1]], dim=1),
            "not a number": with_nan,
            "whole numbers": valid.long(),
        }
    if isinstance(space, DiscreteTokens):
        return {
            "an id beyond the vocabulary": torch.full_like(valid, space.vocabulary_size),
            "a negative id": torch.full_like(valid, -1),
            "real numbers": valid.float(),
        }
    raise InvalidComponentError(
        f"The suite can not make wrong tokens of kind '{space.kind}': define `invalid_tokens` in your subclass."
    )


def assert_same_tokens(found: Tensor, expected: Tensor, *, tolerance: float = 0.0, reason: str = "") -> None:
    """Fail unless the tokens agree: exactly for ids, within `tolerance` (absolute and relative) for numbers."""
    exact = not expected.is_floating_point()
    torch.testing.assert_close(
        found,
        expected,
        rtol=0.0 if exact else tolerance,
        atol=0.0 if exact else tolerance,
        msg=lambda text: f"{reason}: {text}" if reason else text,
    )
