"""Confidence order: every step draws all unknown tokens and keeps the surest (MaskGIT, arXiv 2202.04200)."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import AttentionPattern, TrainedPermutations, TrainingView
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import Grid
from fluid_orders.masked_training import masked_view
from fluid_orders.options import ConfidenceOrderOptions
from fluid_orders.step_sizes import steps_of
from fluid_orders.unknown_positions import count_unknown


class ConfidenceOrder:
    """A masked model, trained as the random order, that keeps of each step what its head is surest of."""

    attention = AttentionPattern.BIDIRECTIONAL
    trained_permutations = TrainedPermutations.ANY
    needs_confidence = True

    def __init__(self, options: ConfidenceOrderOptions | None = None) -> None:
        self.options = options or ConfidenceOrderOptions()

    def training_view(
        self, batch_size: int, grid: Grid, *, generator: torch.Generator, device: torch.device
    ) -> TrainingView:
        """A random permutation and a cosine mask ratio of its own for every sample: see `masked_view`."""
        return masked_view(batch_size, grid, generator=generator, device=device)

    def generation(
        self, unknown: Bool[Tensor, "batch length"], grid: Grid, *, num_steps: int | None, random: KeyedRandom
    ) -> "SurestFirstSteps":
        """Steps that keep as many tokens as the options say, and that the head's confidence chooses.

        Raises `InvalidRequestError` for a `num_steps` below one or above the number of unknown positions.
        """
        num_unknown = count_unknown(unknown, grid)
        sizes = steps_of(self.options, num_unknown, num_steps)
        return SurestFirstSteps(unknown, step_sizes=sizes, noise=self.options.noise, random=random)


class SurestFirstSteps:
    """Proposes all unknown positions and keeps the `step_sizes[k]` surest of them at step k.

    At step k of N (from 0), `noise` * (1 - (k + 1) / N) times Gumbel noise is added to each confidence. The noise of a
    position depends on its image's row of `random` and on the step alone. `random` has one row per image.
    """

    def __init__(
        self,
        unknown: Bool[Tensor, "batch length"],
        *,
        step_sizes: tuple[int, ...],
        noise: float,
        random: KeyedRandom,
    ) -> None:
        self.num_steps = len(step_sizes)
        self._unknown = unknown.clone()
        self._step_sizes, self._noise, self._random = step_sizes, noise, random
        self._step = 0

    def propose(self) -> Int[Tensor, "batch positions"] | None:
        """All unknown positions in raster order; None when nothing is left."""
        if self._step == self.num_steps:
            return None
        return self._unknown.nonzero()[:, 1].view(self._unknown.shape[0], -1)

    @property
    def num_kept(self) -> int:
        """How many of the proposed tokens this step keeps; 0 when nothing is left."""
        return self._step_sizes[self._step] if self._step < self.num_steps else 0

    def accept(self, confidence: Float[Tensor, "batch positions"] | None) -> Bool[Tensor, "batch positions"]:
        """True for the surest tokens, the same number in every image; equal ones in raster order.

        Raises `InvalidRequestError` without confidence, or if it is not a number.
        """
        positions = self.propose()
        assert positions is not None, "accept() was called although nothing was left to propose"
        if confidence is None or bool(confidence.isnan().any()):
            raise InvalidRequestError(
                "The confidence order keeps the tokens that the head is surest of, and was told "
                f"{'nothing' if confidence is None else 'values that are not numbers'}: use a head that can tell, such "
                "as 'softmax', or another order."
            )
        strength = self._noise * (1.0 - (self._step + 1) / self.num_steps)
        if strength > 0.0:
            confidence = confidence + strength * self._gumbel().to(confidence.device).gather(1, positions)
        surest = confidence.argsort(dim=1, descending=True, stable=True)[:, : self.num_kept]
        self._unknown.scatter_(1, positions.gather(1, surest), False)
        self._step += 1
        return torch.zeros_like(positions, dtype=torch.bool).scatter(1, surest, True)

    def _gumbel(self) -> Float[Tensor, "batch length"]:
        uniform = self._random.child(self._step).uniform((self._unknown.shape[1],))
        # The middle of the interval that is rounded to 0, whose noise would be minus infinity.
        return -torch.log(-torch.log(uniform.clamp(min=2.0**-25)))
