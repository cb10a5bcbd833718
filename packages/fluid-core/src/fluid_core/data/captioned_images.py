"""What a data set of captioned pictures offers, as items by index or as a stream, and what it may offer on top."""

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

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
    continues exactly. Variety is more items, such as mirrored copies, or comes from `EpochVariants`.
    """

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width, in pixels, of every picture."""

    def __len__(self) -> int:
        """Number of items."""

    def __getitem__(self, index: int) -> CaptionedImage:
        """Item `index`, from 0 to `len - 1`.

        Raises `IndexError` outside that range, and `SkippedItemError` for an item that can not be used, such as a
        damaged picture: loaders count such items, list them and take others in their place.
        """


@runtime_checkable
class EpochVariants(Protocol):
    """An ability some data sets with random access have: items that look different in every epoch.

    What is drawn, such as the place of a crop or one caption of several, follows from the seed of the data set, the
    epoch and the index. `dataset[index]` is `variant(index, epoch=0)`.
    """

    @property
    def varies(self) -> bool:
        """Whether any item differs between epochs. If not, a cache of the items loses nothing."""

    def variant(self, index: int, *, epoch: int) -> CaptionedImage:
        """Item `index` as it looks in `epoch` (from 0). Raises as `CaptionedImages.__getitem__` does."""


@attrs.frozen(kw_only=True)
class StreamSample:
    """One item of a stream before it is decoded: small enough that thousands wait in memory."""

    key: str
    """Names the item within the whole stream: no other has it. Shown to people if the item is left out."""

    content: Any
    """Whatever the stream needs to make the item of it; nobody else looks inside."""


@runtime_checkable
class CaptionedStream(Protocol):
    """A data set without random access: shards, each of which is read from its beginning to its end.

    Shards are what several processes divide among them and what a checkpoint remembers. The samples of a shard are
    the same, in the same order, every time and in every process. The order of shards and the mixing of samples are not
    the stream's business but the loader's.
    """

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width, in pixels, of every picture."""

    @property
    def num_shards(self) -> int:
        """Number of shards, at least 1. There must be one for each process of a run."""

    @property
    def shuffle_buffer(self) -> int:
        """How many samples a loader keeps in memory to mix them; 1 leaves them in the order of their shard."""

    @property
    def varies(self) -> bool:
        """Whether an item looks different in another epoch. If not, a cache of the items loses nothing."""

    def samples(self, shard: int) -> Iterator[StreamSample]:
        """The samples of shard `shard`, from 0 to `num_shards - 1`; several shards may be read at once.

        Raises `IndexError` outside that range, at once or when the first sample is asked for, and `SkippedItemError`
        where a shard is damaged: loaders count it and go on with the next shard.
        """

    def item(self, sample: StreamSample, *, epoch: int) -> CaptionedImage:
        """The picture and caption of `sample` as they look in `epoch` (from 0).

        What is drawn follows from the seed of the data set, the epoch and the sample's key, so that neither the order
        of reading nor the process matters. Raises `SkippedItemError` for an item that can not be used.
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
