"""Validation loss: the training loss on pictures the model has not seen, without dropout of text."""

from collections.abc import Sequence

import torch

from fluid_core.data.batches import stack_items
from fluid_core.data.captioned_images import CaptionedImage
from fluid_core.data.encoded_images import EncodedImage
from fluid_core.errors import InvalidRequestError
from fluid_core.evaluation_mode import evaluation_mode
from fluid_core.exchange import EncodedBatch
from fluid_core.model import FluidModel


@torch.no_grad()
def validation_loss(
    model: FluidModel, items: Sequence[CaptionedImage | EncodedImage], *, batch_size: int = 64, seed: int = 0
) -> dict[str, float]:
    """Mean loss per predicted token over `items`, as `loss` and each of its parts.

    Orders, masks and noise are drawn from `seed`, the same at every call, so that two checkpoints are comparable on the
    same items, such as those of `fluid_core.data.batches.readable_items`. Losses of different heads are not:
    cross-entropy and noise prediction have different units (paper, figure 5). Raises `InvalidRequestError` without
    items and for a batch size below one.
    """
    if not items or batch_size < 1:
        raise InvalidRequestError(
            f"Expected at least one item and a batch_size of 1 or more, found {len(items)} items and a batch_size of "
            f"{batch_size}."
        )
    sums: dict[str, float] = {}
    num_tokens = 0
    with evaluation_mode(model):
        for first in range(0, len(items), batch_size):
            batch = stack_items(items[first : first + batch_size])
            encoded = batch if isinstance(batch, EncodedBatch) else model.encode(batch.images, batch.captions)
            generator = torch.Generator().manual_seed((seed * 1_000_003 + first) % 2**63)
            loss = model(model.prepare_encoded(encoded, generator=generator, text_drop_probability=0.0))
            num_tokens += loss.num_tokens
            for name, value in {"loss": loss.total, **loss.parts}.items():
                sums[name] = sums.get(name, 0.0) + float(value)
    return {name: value / num_tokens for name, value in sums.items()}
