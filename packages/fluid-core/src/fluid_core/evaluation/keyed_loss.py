"""The loss of pictures under draws that belong to each picture: the same for every model, batch and process.

Two models are compared on few pictures only if chance treats them alike. Here the order of tokens, the cut between
known and predicted ones, the noise of the head and the draw from the tokenizer's posterior follow from the seed, the
number of the picture and the number of the draw, and from nothing else.
"""

from collections.abc import Sequence

import attrs
import torch
from jaxtyping import Float, Int
from torch import Tensor

from fluid_core.data.batches import stack_items
from fluid_core.data.numbered_items import NumberedItem
from fluid_core.exchange import AttentionPattern, EncodedBatch, TextFeatures, TrainingView
from fluid_core.keyed_random import KeyedRandom
from fluid_core.model import FluidModel, TrainingBatch

NUM_SHARES = 10
"""Equal parts of the way from an empty to a finished picture, by which losses are told apart."""


@attrs.frozen(kw_only=True, eq=False)
class ImageLosses:
    """Sums over the predicted tokens of each picture, in float64; means are sums of these over sums of counts."""

    totals: dict[str, Float[Tensor, "images draws"]]
    """`loss` and each of its parts."""

    num_tokens: Int[Tensor, "images draws"]
    share_totals: Float[Tensor, "images shares"]
    """`loss` over all draws, by how large a share of the picture the model knew when it predicted a token."""

    share_num_tokens: Int[Tensor, "images shares"]


@torch.no_grad()
def keyed_losses(model: FluidModel, items: Sequence[NumberedItem], *, seed: int, num_draws: int = 1) -> ImageLosses:
    """Losses of a batch of at least one item; `model` is in evaluation mode.

    A bidirectional model knows the same tokens for all it predicts; a causal one knows those before each in its order.
    """
    batch = stack_items([one.item for one in items])
    encoded = batch if isinstance(batch, EncodedBatch) else model.encode(batch.images, batch.captions)
    text = encoded.text or model.encode_text(encoded.captions)
    text = TextFeatures(states=text.states.to(model.device), mask=text.mask.to(model.device))
    keys = KeyedRandom(torch.tensor([one.number for one in items])).child(seed)
    draws = [_drawn(model, encoded, text, keys.child(draw)) for draw in range(num_draws)]
    found = [_summed(model, one) for one in draws]
    names = found[0].totals
    return ImageLosses(
        totals={name: torch.cat([one.totals[name] for one in found], dim=1) for name in names},
        num_tokens=torch.cat([one.num_tokens for one in found], dim=1),
        share_totals=torch.stack([one.share_totals for one in found]).sum(dim=0),
        share_num_tokens=torch.stack([one.share_num_tokens for one in found]).sum(dim=0),
    )


def _drawn(model: FluidModel, encoded: EncodedBatch, text: TextFeatures, random: KeyedRandom) -> TrainingBatch:
    """One draw of everything random; `random` has a row for each picture, on the CPU."""
    device, count = model.device, len(encoded.captions)
    to_device = random.child(0).seeds().to(device), random.child(1).seeds().to(device)
    precomputed = {name: tensor.to(device) for name, tensor in encoded.precomputed.items()}
    return TrainingBatch(
        tokens=model.tokenizer.tokens(precomputed, random=KeyedRandom(to_device[0])),
        text=text,
        dropped=torch.zeros(count, dtype=torch.bool, device=device),
        view=_view(model, random.child(2)),
        random=KeyedRandom(to_device[1]),
        empty_prompt=model.empty_prompt(),
    )


def _view(model: FluidModel, random: KeyedRandom) -> TrainingView:
    """A view of each picture by itself: orders draw for a whole batch at once, and must not see who else is in it."""
    grid = model.tokenizer.token_space.grid
    views = [
        model.order.training_view(1, grid, generator=torch.Generator().manual_seed(seed), device=model.device)
        for seed in random.seeds().tolist()
    ]
    return TrainingView(
        order=torch.cat([view.order for view in views]), num_known=torch.cat([view.num_known for view in views])
    )


def _summed(model: FluidModel, batch: TrainingBatch) -> ImageLosses:
    predicted = model.token_losses(batch)
    num_images, length = batch.view.order.shape
    chosen = predicted.chosen.cpu()
    images = chosen // length
    known = batch.view.num_known[:, None].expand(-1, length)
    if model.order.attention is AttentionPattern.CAUSAL:
        known = batch.view.order.argsort(dim=1)
    shares = (known.cpu().flatten()[chosen] * NUM_SHARES // length).clamp(max=NUM_SHARES - 1)
    values = {"loss": predicted.loss.total, **predicted.loss.parts}
    on_cpu = {name: value.detach().to("cpu", torch.float64) for name, value in values.items()}
    ones = torch.ones_like(chosen)
    cells, num_cells = images * NUM_SHARES + shares, num_images * NUM_SHARES
    return ImageLosses(
        totals={name: _by(images, value, num_images)[:, None] for name, value in on_cpu.items()},
        num_tokens=_by(images, ones, num_images)[:, None],
        share_totals=_by(cells, on_cpu["loss"], num_cells).view(num_images, NUM_SHARES),
        share_num_tokens=_by(cells, ones, num_cells).view(num_images, NUM_SHARES),
    )


def _by(index: Int[Tensor, "tokens"], values: Tensor, size: int) -> Tensor:
    """Sums of the values that have the same index."""
    return torch.zeros(size, dtype=values.dtype).index_add_(0, index, values)
