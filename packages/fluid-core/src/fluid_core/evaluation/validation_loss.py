"""Validation loss: the training loss on pictures the model has not seen, without dropout of text."""

import torch

from fluid_core.data.batches import stack
from fluid_core.data.captioned_images import CaptionedImage, CaptionedImages
from fluid_core.errors import DataError, InvalidRequestError, UnreadableImageError
from fluid_core.model import FluidModel


@torch.no_grad()
def validation_loss(
    model: FluidModel, dataset: CaptionedImages, *, num_images: int, batch_size: int = 64, seed: int = 0
) -> dict[str, float]:
    """Mean loss per predicted token over the first `num_images` readable pictures, as `loss` and each of its parts.

    Orders, masks and noise are drawn from `seed`, the same at every call, so that two checkpoints are comparable.
    Losses of different heads are not: cross-entropy and noise prediction have different units (paper, figure 5).
    Raises `DataError` if not one picture can be read, and `InvalidRequestError` for numbers below one.
    """
    if num_images < 1 or batch_size < 1:
        raise InvalidRequestError(
            f"Expected num_images and batch_size of 1 or more, found {num_images} and {batch_size}."
        )
    was_training = model.training
    model.eval()
    sums: dict[str, float] = {}
    num_tokens = 0
    try:
        items = _readable(dataset, num_images)
        for first in range(0, len(items), batch_size):
            batch = stack(items[first : first + batch_size])
            generator = torch.Generator().manual_seed((seed * 1_000_003 + first) % 2**63)
            loss = model.loss(batch.images, batch.captions, generator=generator, text_drop_probability=0.0)
            num_tokens += loss.num_tokens
            for name, value in {"loss": loss.total, **loss.parts}.items():
                sums[name] = sums.get(name, 0.0) + float(value)
    finally:
        model.train(was_training)
    return {name: value / num_tokens for name, value in sums.items()}


def _readable(dataset: CaptionedImages, count: int) -> list[CaptionedImage]:
    items: list[CaptionedImage] = []
    for index in range(len(dataset)):
        if len(items) == count:
            break
        try:
            items.append(dataset[index])
        except UnreadableImageError:
            continue
    if not items:
        raise DataError("Not one picture of the validation split can be read.")
    return items
