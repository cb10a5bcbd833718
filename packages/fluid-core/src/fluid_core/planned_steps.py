"""The course of a generation whose order and cuts are known before it starts."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluid_core.errors import InvalidRequestError


class PlannedSteps:
    """`GenerationSteps` for every order fixed in advance: a permutation of the unknown positions, and step
    sizes.

    Step k proposes the next `step_sizes[k]` columns of `order` and keeps all that was drawn for them.
    `num_steps` is the number of steps. Raises `InvalidRequestError` if a step is empty or the sizes do not
    sum to the number of columns.
    """

    def __init__(self, order: Int[Tensor, "batch unknown"], step_sizes: Sequence[int]) -> None:
        num_unknown = order.shape[1]
        if any(size < 1 for size in step_sizes) or sum(step_sizes) != num_unknown:
            raise InvalidRequestError(
                f"Expected step sizes of at least 1 that sum to the {num_unknown} unknown positions, found "
                f"{list(step_sizes)}, which sum to {sum(step_sizes)}."
            )
        self.num_steps = len(step_sizes)
        self._order = order
        self._bounds = list(pairwise(accumulate(step_sizes, initial=0)))
        self._step = 0

    def propose(self) -> Int[Tensor, "batch positions"] | None:
        """Positions of the current step; None after the last. Asking again gives the same until `accept`."""
        if self._step == self.num_steps:
            return None
        start, stop = self._bounds[self._step]
        return self._order[:, start:stop]

    def accept(
        self,
        confidence: Float[Tensor, "batch positions"] | None,  # noqa: ARG002  (part of the protocol)
    ) -> Bool[Tensor, "batch positions"]:
        """Keep all proposed tokens and go on to the next step; `confidence` changes nothing."""
        proposed = self.propose()
        assert proposed is not None, "accept() was called although nothing was left to propose"
        self._step += 1
        return torch.ones_like(proposed, dtype=torch.bool)
