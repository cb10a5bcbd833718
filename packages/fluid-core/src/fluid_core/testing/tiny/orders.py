"""Four orders: causal and bidirectional, one token and several tokens a step, fixed in advance and adaptive."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import AttentionPattern, TrainedPermutations, TrainingView
from fluid_core.keyed_random import KeyedRandom
from fluid_core.planned_steps import PlannedSteps
from fluid_core.protocols import GenerationSteps
from fluid_core.token_space import Grid


class TinyRasterOrder:
    """Causal, one fixed permutation: row by row, one token a step."""

    attention = AttentionPattern.CAUSAL
    trained_permutations = TrainedPermutations.FIXED

    def training_view(
        self,
        batch_size: int,
        grid: Grid,
        *,
        generator: torch.Generator,  # noqa: ARG002  (nothing is random)
        device: torch.device,
    ) -> TrainingView:
        """All tokens, each from those before it."""
        order = torch.arange(grid.length, device=device).repeat(batch_size, 1)
        return TrainingView(order=order, num_known=torch.zeros_like(order[:, 0]))

    def generation(
        self,
        unknown: Bool[Tensor, "batch length"],
        grid: Grid,
        *,
        num_steps: int | None,
        random: KeyedRandom,  # noqa: ARG002  (nothing is random)
    ) -> GenerationSteps:
        """One token a step. Raises `InvalidRequestError` for another number of steps, or if a known token comes
        after an unknown one.
        """
        count = _count(unknown)
        order = torch.arange(grid.length, device=unknown.device).repeat(len(unknown), 1)[:, grid.length - count :]
        if num_steps not in (None, count):
            raise InvalidRequestError(f"Expected {count} steps, one per token, found {num_steps}.")
        if not bool(unknown[:, grid.length - count :].all()):
            raise InvalidRequestError("Expected the unknown tokens to be the last ones of the image.")
        return PlannedSteps(order, (1,) * count)


class TinyRandomOrder:
    """Bidirectional: any tokens may be known, the others come in random order, in steps of equal size."""

    attention = AttentionPattern.BIDIRECTIONAL
    trained_permutations = TrainedPermutations.ANY

    def training_view(
        self, batch_size: int, grid: Grid, *, generator: torch.Generator, device: torch.device
    ) -> TrainingView:
        """A permutation and a number of known tokens, from none to all but one, of its own for each image."""
        order = torch.rand(batch_size, grid.length, generator=generator).argsort(dim=1)
        num_known = torch.randint(grid.length, (batch_size,), generator=generator)
        return TrainingView(order=order.to(device), num_known=num_known.to(device))

    def generation(
        self, unknown: Bool[Tensor, "batch length"], grid: Grid, *, num_steps: int | None, random: KeyedRandom
    ) -> GenerationSteps:
        """A random order of the unknown positions of each image, in four steps by default. Raises
        `InvalidRequestError` unless there are from 1 to as many steps as unknown positions.
        """
        return PlannedSteps(random_order(unknown, grid, random), _equal_sizes(_count(unknown), num_steps))


class TinyCausalAnyOrder:
    """Causal over any permutation, with several tokens a step: the case for which core can ask its cache about more
    than one next position.
    """

    attention = AttentionPattern.CAUSAL
    trained_permutations = TrainedPermutations.ANY

    def training_view(
        self, batch_size: int, grid: Grid, *, generator: torch.Generator, device: torch.device
    ) -> TrainingView:
        """All tokens, in a random permutation of its own for each image."""
        order = torch.rand(batch_size, grid.length, generator=generator).argsort(dim=1).to(device)
        return TrainingView(order=order, num_known=torch.zeros_like(order[:, 0]))

    def generation(
        self, unknown: Bool[Tensor, "batch length"], grid: Grid, *, num_steps: int | None, random: KeyedRandom
    ) -> GenerationSteps:
        """A random order of the unknown positions of each image, in four steps by default. Raises
        `InvalidRequestError` unless there are from 1 to as many steps as unknown positions.
        """
        return PlannedSteps(random_order(unknown, grid, random), _equal_sizes(_count(unknown), num_steps))


class TinySurestFirstOrder(TinyRandomOrder):
    """Adaptive: every step proposes all that is unknown, and keeps the tokens the head was surest of (MaskGIT).

    With a head that can not tell it keeps them in raster order.
    """

    needs_confidence = False

    def generation(
        self,
        unknown: Bool[Tensor, "batch length"],
        grid: Grid,  # noqa: ARG002  (all is in the mask)
        *,
        num_steps: int | None,
        random: KeyedRandom,  # noqa: ARG002  (the head decides)
    ) -> GenerationSteps:
        """Four steps by default. Raises `InvalidRequestError` unless there are from 1 to as many steps as unknown
        positions.
        """
        return SurestFirst(unknown.clone(), _equal_sizes(_count(unknown), num_steps))


class SurestFirst:
    """Step k keeps the `step_sizes[k]` tokens of the highest confidence; without confidence, the first ones."""

    def __init__(self, unknown: Bool[Tensor, "batch length"], step_sizes: tuple[int, ...]) -> None:
        self.num_steps = len(step_sizes)
        self._unknown, self._step_sizes, self._step = unknown, step_sizes, 0

    def propose(self) -> Int[Tensor, "batch positions"] | None:
        """All unknown positions, in raster order."""
        if self._step == self.num_steps:
            return None
        return self._unknown.nonzero()[:, 1].view(len(self._unknown), -1)

    @property
    def num_kept(self) -> int:
        """How many this step keeps; 0 when nothing is left."""
        return self._step_sizes[self._step] if self._step < self.num_steps else 0

    def accept(self, confidence: Float[Tensor, "batch positions"] | None) -> Bool[Tensor, "batch positions"]:
        """True for the surest tokens: the same number in every image."""
        positions = self.propose()
        assert positions is not None, "accept() was called although nothing was left to propose"
        if confidence is None:
            confidence = -positions.float()
        chosen = confidence.topk(self.num_kept, dim=1).indices
        keep = torch.zeros_like(positions, dtype=torch.bool).scatter(1, chosen, True)
        self._unknown[keep.nonzero()[:, 0], positions[keep]] = False
        self._step += 1
        return keep


def random_order(
    unknown: Bool[Tensor, "batch length"], grid: Grid, random: KeyedRandom
) -> Int[Tensor, "batch unknown"]:
    """The unknown positions of each image in an order that its own key decides."""
    ranks = random.uniform((grid.length,)).masked_fill(~unknown, 2.0)
    return ranks.argsort(dim=1, stable=True)[:, : _count(unknown)]


def _count(unknown: Bool[Tensor, "batch length"]) -> int:
    """Number of unknown positions, the same in every image."""
    return int(unknown[0].sum())


def _equal_sizes(count: int, num_steps: int | None) -> tuple[int, ...]:
    num_steps = min(4, count) if num_steps is None else num_steps
    if not 1 <= num_steps <= count:
        raise InvalidRequestError(f"Expected from 1 to {count} steps, found {num_steps}.")
    return tuple(count * (k + 1) // num_steps - count * k // num_steps for k in range(num_steps))
