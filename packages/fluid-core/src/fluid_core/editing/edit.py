"""Given pictures as known tokens, and the drawing of the others."""

from collections.abc import Sequence

import attrs
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from fluid_core.editing.canvas import Canvases
from fluid_core.editing.kept_tokens import KeptTokens, kept_tokens
from fluid_core.errors import IncompatibleComponentsError
from fluid_core.exchange import TrainedPermutations
from fluid_core.model import FluidModel
from fluid_core.pipeline.call_settings import CallSettings
from fluid_core.pipeline.drawing import Drawing, prepare_drawing
from fluid_core.protocols import OrderPolicy

# Far from the labels that the sampling loop gives to its steps.
_ENCODING = 2**40
_CHOICE = 2**40 + 1


@attrs.frozen(kw_only=True, eq=False)
class Edited:
    """What was drawn around what was kept."""

    drawing: Drawing
    tokens: Shaped[Tensor, "images length *token"]
    known: Bool[Tensor, "images length"]
    """True at the tokens that are the given picture's."""


def check_editable(model: FluidModel, order: OrderPolicy | None) -> None:
    """Raise `IncompatibleComponentsError` for a model or an order that can not begin from any set of known tokens."""
    for policy in (model.order, order or model.order):
        if policy.trained_permutations is TrainedPermutations.FIXED:
            raise IncompatibleComponentsError(
                f"{type(policy).__name__} can not edit pictures: it predicts tokens in one fixed order, each from the "
                "ones before it, so that tokens kept further on could not be taken into account. Use a model trained "
                "over any permutation, with the order 'random' or 'causal-random' for instance, and sample in such an "
                "order."
            )


def draw_edit(
    model: FluidModel, prompt: str | Sequence[str] | None, canvases: Canvases, settings: CallSettings
) -> Edited:
    """New tokens where `canvases` are drawn, the tokenizer's own where they are kept."""
    check_editable(model, settings.order)
    known = canvases.known_tokens(model.tokenizer.token_space.grid)
    drawing = prepare_drawing(model, prompt, settings, num_pictures=len(known))
    return _draw_around(drawing, canvases.pictures, _each(known, drawing))


def draw_variation(
    model: FluidModel,
    prompt: str | Sequence[str] | None,
    pictures: Float[Tensor, "pictures 3 height width"],
    keep: KeptTokens,
    settings: CallSettings,
) -> Edited:
    """The tokens of pictures in [0, 1] that `keep` says, and new ones in place of the others."""
    check_editable(model, settings.order)
    drawing = prepare_drawing(model, prompt, settings, num_pictures=len(pictures))
    num_pictures = len(drawing.seeds) // settings.num_images_per_prompt
    grid = model.tokenizer.token_space.grid
    known = kept_tokens(keep, grid, drawing.random.child(_CHOICE), num_pictures=num_pictures)
    return _draw_around(drawing, pictures, known)


@torch.no_grad()
def _draw_around(drawing: Drawing, pictures: Tensor, known: Tensor) -> Edited:
    model = drawing.model
    known = known.to(model.device)
    # Encoded once, and then drawn from the posterior for every image of its own.
    precomputed = model.tokenizer.precompute((2.0 * pictures - 1.0).to(model.device))
    each = {name: _each(tensor, drawing) for name, tensor in precomputed.items()}
    tokens = model.tokenizer.tokens(each, random=drawing.random.child(_ENCODING))
    return Edited(drawing=drawing, tokens=drawing.tokens_around(tokens, known), known=known)


def _each(rows: Tensor, drawing: Drawing) -> Tensor:
    """A row for every image, each repeated in place."""
    return rows.repeat_interleave(len(drawing.seeds) // len(rows), 0)
