"""What signatures look at: real pictures, drawn ones, losses and the course of training, whatever of it there is."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from fluid_core.token_space import DiscreteTokens, Grid, TokenSpace


@attrs.frozen(kw_only=True, eq=False)
class RealPictures:
    """Pictures of the data, as the tokenizer gives them back, so that what it loses is not held against the model."""

    pictures: Float[Tensor, "pictures 3 height width"]
    """In [0, 1]."""

    tokens: Shaped[Tensor, "pictures length *token"] | None = None
    """None where no tokenizer is known: then the pictures are the originals."""


@attrs.frozen(kw_only=True, eq=False)
class DrawnPictures:
    """Pictures that a model drew in one way."""

    pictures: Float[Tensor, "pictures 3 height width"]
    """In [0, 1]."""

    guidance: float | None = None
    """The scale; None for pictures from a folder that does not tell."""

    tokens: Shaped[Tensor, "pictures length *token"] | None = None
    step: Int[Tensor, "pictures length"] | None = None
    """The step, from 0, in which each token was drawn; None for pictures from a folder."""

    known_before: Float[Tensor, "pictures length"] | None = None
    """Share of the picture that was known when each token was drawn, from 0 up to, and not including, 1."""

    @property
    def name(self) -> str:
        """How words speak of them."""
        return "in the folder" if self.guidance is None else f"at guidance {self.guidance:g}"


@attrs.frozen(kw_only=True, eq=False)
class CaptionLosses:
    """Mean loss per predicted token of each picture, under the same draws, with its caption and with others."""

    right: Float[Tensor, "pictures"]
    wrong: Float[Tensor, "pictures"]
    """With the caption of another picture, which says something else."""


@attrs.frozen(kw_only=True)
class TrainingCourse:
    """What a run wrote down about its training."""

    rows: Sequence[Mapping[str, Any]]
    """Of `metrics.jsonl`."""

    ema_decay: float | None = None
    planned_steps: int | None = None
    """Steps that a run has which has not finished; None for one that has."""

    batch_size: int | None = None


@attrs.frozen(kw_only=True, eq=False)
class Evidence:
    """All there is to look at; None, or nothing, for what there is not."""

    grid: Grid | None = None
    """How tokens, or patches where no tokenizer is known, lie in a picture."""

    token_space: TokenSpace | None = None
    real: RealPictures | None = None
    drawn: tuple[DrawnPictures, ...] = ()
    """One for each guidance scale, the smallest first: the same captions, in the same places."""

    real_ids: Int[Tensor, "more length"] | None = None
    """Ids of further real pictures, of a discrete tokenizer: encoding is cheap, and rare codes need many."""

    caption_losses: CaptionLosses | None = None
    course: TrainingCourse | None = None
    head: str | None = None
    """Name of the head, for advice; None where nobody knows."""

    one_after_the_other: bool = False
    """The order goes row by row, always the same way."""

    why_no_pictures: str = ""
    why_no_losses: str = ""
    """What is missing, in a sentence, where there is nothing drawn or no loss."""

    why_no_course: str = "There is no metrics.jsonl: this is not the folder of a training run."

    @property
    def discrete(self) -> bool:
        """Whether tokens are ids of a codebook."""
        return isinstance(self.token_space, DiscreteTokens)


def unequal_channels(evidence: Evidence) -> bool:
    """Whether channels of continuous tokens are far from zero mean and unit variance."""
    if evidence.real is None or evidence.real.tokens is None or not evidence.real.tokens.is_floating_point():
        return False
    vectors = evidence.real.tokens.double().flatten(0, -2)
    std = vectors.std(dim=0, correction=0)
    return bool((vectors.mean(dim=0).abs() > 1.0).any() or (std < 0.5).any() or (std > 2.0).any())


THIRDS = ("first third", "middle third", "last third")
"""Names of the parts of the way from an empty to a finished picture, by the share known before a token is drawn."""


def third_of(known_before: Float[Tensor, "pictures length"]) -> Int[Tensor, "pictures length"]:
    """0, 1 or 2 for each token."""
    return (known_before * len(THIRDS)).long().clamp(0, len(THIRDS) - 1)


def patches(pictures: Float[Tensor, "pictures 3 height width"], grid: Grid) -> Float[Tensor, "pictures length 3 area"]:
    """The pixels that each position of the grid covers.

    Rows and columns left over where the grid does not divide the picture are cut off.
    """
    height, width = pictures.shape[2] // grid.height, pictures.shape[3] // grid.width
    cut = pictures[:, :, : height * grid.height, : width * grid.width]
    cells = cut.reshape(len(cut), 3, grid.height, height, grid.width, width)
    return cells.permute(0, 2, 4, 1, 3, 5).reshape(len(cut), grid.length, 3, height * width)


def token_values(
    pictures: Float[Tensor, "pictures 3 height width"],
    tokens: Shaped[Tensor, "pictures length *token"] | None,
    grid: Grid,
) -> Float[Tensor, "pictures length channels"]:
    """What has a mean and a spread at every position: continuous tokens themselves, or else mean colours of patches."""
    if tokens is not None and tokens.is_floating_point() and tokens.ndim == 3:
        return tokens.double()
    return patches(pictures, grid).mean(dim=3).double()


def steps_in_words(steps: Int[Tensor, "some"]) -> str:
    """Such as `step 3` or `steps 3 to 9`, counted from 1."""
    first, last = int(steps.min()) + 1, int(steps.max()) + 1
    return f"step {first}" if first == last else f"steps {first} to {last}"


def parts(values: Float[Tensor, "pictures length"], third: Int[Tensor, "pictures length"], part: int) -> Tensor:
    """For each picture that drew tokens in this part of its way, the mean of their values: `some`."""
    chosen = third == part
    counts = chosen.sum(dim=1)
    sums = torch.where(chosen, values, torch.zeros_like(values)).sum(dim=1)
    return (sums / counts.clamp(min=1))[counts > 0]
