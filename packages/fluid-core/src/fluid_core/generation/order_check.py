"""Whether a model can sample in an order other than the one it was trained with."""

import attrs
import torch

from fluid_core.errors import IncompatibleComponentsError
from fluid_core.exchange import AttentionPattern, TrainedPermutations
from fluid_core.model import FluidModel
from fluid_core.protocols import OrderPolicy
from fluid_core.sampler_choice import check_confidence


def check_order(model: FluidModel, order: OrderPolicy) -> None:
    """Raise `IncompatibleComponentsError` unless a model trained with its own order can sample in `order`.

    A model over one fixed permutation follows its own. One over any permutation follows every order of its own
    attention. A causal one also follows bidirectional orders, from its cache: whichever positions come next, predicting
    each from the tokens that are known is what it learned.
    """
    own = model.order
    same_order = type(order) is type(own) and _options(order) == _options(own) and _same_path(model, order)
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


def _same_path(model: FluidModel, order: OrderPolicy) -> bool:
    """Whether `order`, of the model's own class, goes the model's way where there is only one to go."""
    own = model.order
    if (
        order is own
        or own.trained_permutations is TrainedPermutations.ANY
        or own.attention is not AttentionPattern.CAUSAL
    ):
        return True
    grid = model.tokenizer.token_space.grid
    # One permutation for all images: any generator tells it.
    own_path, path = (
        one.training_view(1, grid, generator=torch.Generator(), device=torch.device("cpu")).order
        for one in (own, order)
    )
    return torch.equal(own_path, path)


def _options(order: OrderPolicy) -> object:
    """The options of an order, if it has some: with other ones a fixed order may be another permutation."""
    options = getattr(order, "options", None)
    return options if attrs.has(type(options)) else None
