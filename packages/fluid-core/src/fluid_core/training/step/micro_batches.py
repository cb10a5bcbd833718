"""A process's share of a batch, cut into parts that are computed one after the other.

What is random is drawn for the whole batch and only then cut, so that the parts together compute what one piece would.
"""

from itertools import pairwise

import attrs

from fluid_core.data.batches import ImageBatch
from fluid_core.errors import ConfigurationError
from fluid_core.exchange import BatchShare, EncodedBatch, TextFeatures


def micro_shares(share: BatchShare, num_parts: int) -> tuple[BatchShare, ...]:
    """`share` in `num_parts` parts of about equal size. Raises `ConfigurationError` if some part would have no row."""
    if share.count < num_parts:
        raise ConfigurationError(
            f"Expected at least one image for each of {num_parts} training.accumulation_steps, found a share of "
            f"{share.count} images of the {share.total} in a batch, which {share.num_processes} processes divide. "
            "Lower training.accumulation_steps, or enlarge training.batch_size."
        )
    edges = [share.first + share.count * part // num_parts for part in range(num_parts + 1)]
    return tuple(attrs.evolve(share, first=first, count=end - first) for first, end in pairwise(edges))


def rows_of(batch: ImageBatch | EncodedBatch, rows: slice) -> ImageBatch | EncodedBatch:
    """Some rows of a batch."""
    captions = batch.captions[rows]
    if len(captions) == len(batch.captions):
        return batch
    if isinstance(batch, ImageBatch):
        return ImageBatch(images=batch.images[rows], captions=captions)
    text = None if batch.text is None else TextFeatures(states=batch.text.states[rows], mask=batch.text.mask[rows])
    return EncodedBatch(
        precomputed={name: tensor[rows] for name, tensor in batch.precomputed.items()}, captions=captions, text=text
    )
