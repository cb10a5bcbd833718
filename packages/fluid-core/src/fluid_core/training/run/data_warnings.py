"""Data that nothing can be learned from, noticed on the first batches and said in words."""

from collections.abc import Iterable

import torch
from torch import Tensor

from fluid_core.data.batches import ImageBatch
from fluid_core.exchange import EncodedBatch

_FEWEST, _MOST = 8, 64
"""Images to look at: one more than a few, so that chance does not speak, and not more than a short look."""

_FLAT = 1.0 / 255.0
"""Range of the values of a channel, in [-1, 1], that is less than one step of eight bits: one flat colour."""


class DataWarnings:
    """Looks at the first images of a run, and has at most one thing to say about captions and one about pictures."""

    def __init__(self) -> None:
        self._is_done = False
        self._num_seen = 0
        self._captions: set[str] = set()
        self._num_flat = 0
        self._pictures: set[int] = set()
        self._are_pictures = True

    def look(self, batch: ImageBatch | EncodedBatch) -> list[str]:
        """What is wrong with the data so far, once enough of it was seen; an empty list after that and otherwise."""
        if self._is_done:
            return []
        if isinstance(batch, ImageBatch):
            channels = batch.images.flatten(2)
            ranges = channels.amax(dim=2) - channels.amin(dim=2)
            self._num_flat += int((ranges < _FLAT).all(dim=1).sum())
            self._pictures.update(_fingerprints([batch.images]))
        else:
            self._are_pictures = False
            self._pictures.update(_fingerprints(batch.precomputed.values()))
        self._captions.update(caption.strip() for caption in batch.captions)
        self._num_seen += len(batch.captions)
        return self._findings() if self._num_seen >= _MOST else []

    def at_the_end(self) -> list[str]:
        """The same for a run that ended before it had shown that many images."""
        return [] if self._is_done or self._num_seen < _FEWEST else self._findings()

    def _findings(self) -> list[str]:
        self._is_done = True
        findings = []
        seen = f"the first {self._num_seen} images"
        if self._captions == {""}:
            findings.append(f"All captions of {seen} are empty: the model can not learn to follow a text.")
        elif len(self._captions) == 1:
            (caption,) = self._captions
            findings.append(
                f"All captions of {seen} are the same, {caption[:80]!r}: the model can not learn to follow a text."
            )
        what = "pictures" if self._are_pictures else "encoded pictures"
        if self._num_flat == self._num_seen:
            findings.append(f"All {what} of {seen} are of one flat colour: there is nothing in them to learn.")
        elif len(self._pictures) == 1:
            findings.append(f"All {what} of {seen} are the same picture: the model can learn nothing but that one.")
        return [f"{finding} Check the section [data]." for finding in findings]


def _fingerprints(tensors: Iterable[Tensor]) -> list[int]:
    """A number for each row of the tensors together, equal for equal rows."""
    rows = [tensor.flatten(1).contiguous().view(torch.uint8) for tensor in tensors]
    return [hash(row.numpy().tobytes()) for row in torch.cat(rows, dim=1).cpu()]
