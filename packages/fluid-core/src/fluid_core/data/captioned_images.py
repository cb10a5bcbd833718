"""What a data set of captioned pictures offers, and what it may offer on top when its pictures can be judged."""

from typing import Protocol, runtime_checkable

import attrs
from jaxtyping import Float
from torch import Tensor

from fluid_core.data.facts import Facts


@attrs.frozen(kw_only=True)
class CaptionedImage:
    """One item: a picture with values in [-1, 1] (red, green, blue) and the text that describes it."""

    image: Float[Tensor, "3 height width"]
    caption: str


@runtime_checkable
class CaptionedImages(Protocol):
    """A data set with random access.

    Item `i` is the same picture and caption every time and in every process, so that a run that is interrupted
    continues exactly. Variety such as mirrored copies is therefore more items, not chance.
    """

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width, in pixels, of every picture."""

    def __len__(self) -> int:
        """Number of items."""

    def __getitem__(self, index: int) -> CaptionedImage:
        """Item `index`, from 0 to `len - 1`.

        Raises `IndexError` outside that range, and `UnreadableImageError` for a picture that is damaged: loaders
        count such items, report them and take others in their place.
        """


@attrs.frozen(kw_only=True)
class JudgedPrompt:
    """A prompt whose pictures can be judged, in the manner of GenEval (arXiv 2310.11513)."""

    task: str
    """One of the data set's `tasks`, or another word for prompts that belong to none of them."""

    text: str
    facts: Facts
    """What a picture must show."""

    held_out: bool = False
    """Whether it asks for a combination that never occurs in training."""


@attrs.frozen(kw_only=True)
class Verdict:
    """Whether a picture shows what its prompt asks for, and why in words for people."""

    correct: bool
    reason: str


@runtime_checkable
class JudgedPrompts(Protocol):
    """An ability some data sets have: prompts for testing a model, and a judge for what it draws."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that are scored apart."""

    def evaluation_prompts(self, *, num_per_task: int, seed: int) -> tuple[JudgedPrompt, ...]:
        """`num_per_task` prompts for each task, one task after the other; the same for equal arguments."""

    def judge(self, image: Float[Tensor, "3 height width"], prompt: JudgedPrompt) -> Verdict:
        """Decide whether `image`, with values in [-1, 1], shows what `prompt` asks for."""
