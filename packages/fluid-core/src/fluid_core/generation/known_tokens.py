"""The state of the images while they come into being: their tokens, and which of them are known."""

import attrs
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.model import FluidModel


@attrs.frozen(kw_only=True, eq=False)
class KnownTokens:
    """Tokens of a batch of images in raster order; every image has the same number of known ones."""

    tokens: Shaped[Tensor, "batch length *token"]
    known: Bool[Tensor, "batch length"]

    @property
    def count(self) -> int:
        """Known tokens of each image."""
        return int(self.known[0].sum())

    def put(self, positions: Int[Tensor, "batch kept"], tokens: Shaped[Tensor, "batch kept *token"]) -> None:
        """Tokens of positions that are known from now on."""
        batch = torch.arange(len(positions), device=positions.device)[:, None]
        self.tokens[batch, positions] = tokens
        self.known[batch, positions] = True

    def at(self, positions: Int[Tensor, "batch chosen"]) -> Shaped[Tensor, "batch chosen *token"]:
        """The tokens at some positions of each image."""
        batch = torch.arange(len(positions), device=positions.device)[:, None]
        return self.tokens[batch, positions]

    def copy(self) -> "KnownTokens":
        """The state of this moment, which stays as it is."""
        return KnownTokens(tokens=self.tokens.clone(), known=self.known.clone())


def known_at_first(
    model: FluidModel,
    batch_size: int,
    tokens: Shaped[Tensor, "images positions *token"] | None,
    known: Bool[Tensor, "images positions"] | None,
) -> KnownTokens:
    """The state before the first step: nothing, or what was given; a copy, checked.

    Raises `InvalidRequestError` for one of the two without the other, for other shapes than those of `batch_size`
    images, for a `known` that is not of truth values, and for different numbers of known tokens; `InvalidTokensError`
    for known tokens that are none.
    """
    space, device = model.tokenizer.token_space, model.device
    empty = space.empty(batch_size, device)
    if tokens is None and known is None:
        return KnownTokens(tokens=empty, known=torch.zeros(empty.shape[:2], dtype=torch.bool, device=device))
    if tokens is None or known is None:
        raise InvalidRequestError(
            "Expected tokens and known together: which positions are known, and what stands there. Found one of them."
        )
    if tokens.shape != empty.shape or known.shape != empty.shape[:2]:
        raise InvalidRequestError(
            f"Expected tokens of shape {tuple(empty.shape)} and known of shape {tuple(empty.shape[:2])} for "
            f"{batch_size} images of this model, found {tuple(tokens.shape)} and {tuple(known.shape)}."
        )
    if known.dtype != torch.bool:
        raise InvalidRequestError(
            f"Expected known as True and False, found {str(known.dtype).removeprefix('torch.')}. Convert it with "
            "known.bool()."
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
    return KnownTokens(tokens=empty, known=known.clone())
