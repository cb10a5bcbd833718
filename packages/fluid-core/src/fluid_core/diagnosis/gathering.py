"""Where the evidence comes from: a model that draws for the captions of real pictures, or a folder of pictures."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import torch
from torch import Tensor

from fluid_core.catalog import ComponentCatalog
from fluid_core.data.batches import stack_items
from fluid_core.data.captioned_images import CaptionedImage
from fluid_core.data.encoded_images import EncodedImage
from fluid_core.data.numbered_items import NumberedItem, NumberedItems
from fluid_core.diagnosis.evidence import CaptionLosses, DrawnPictures, Evidence, RealPictures
from fluid_core.errors import DataError
from fluid_core.evaluation.generated_pictures import pictures_in_folder
from fluid_core.evaluation.image_preparation import ImagePreparation
from fluid_core.evaluation.keyed_loss import keyed_losses
from fluid_core.exchange import AttentionPattern, EncodedBatch, TextFeatures, TrainedPermutations
from fluid_core.generation import GenerationProgress
from fluid_core.keyed_random import KeyedRandom
from fluid_core.model import FluidModel
from fluid_core.pipeline import FluidPipeline
from fluid_core.pipeline.image_seeds import image_seeds
from fluid_core.protocols import OrderPolicy
from fluid_core.sampling_run.settings import SamplingSettings
from fluid_core.token_space import DiscreteTokens, Grid

NUM_LOSS_DRAWS = 2
"""Draws of order, mask and noise for each picture and caption."""

_PATCH, _FEWEST_PATCHES = 16, 8


@attrs.frozen(kw_only=True)
class HowToDraw:
    """How pictures are drawn to be looked at."""

    settings: SamplingSettings
    scales: tuple[float, ...]
    """Guidance scales, rising."""

    num_images: int
    seed: int
    batch_size: int


@attrs.frozen(kw_only=True, eq=False)
class _RealBatch:
    """A batch of real pictures: their tokens, what the tokenizer gives back, and what the model is to draw for."""

    tokens: Tensor
    pictures: Tensor
    captions: tuple[str, ...]
    text: TextFeatures | None


def gather_from_model(
    model: FluidModel,
    items: NumberedItems,
    how: HowToDraw,
    *,
    catalog: ComponentCatalog | None = None,
    note: Callable[[str], None],
) -> Evidence:
    """Draw for the captions of the first `how.num_images` items at every scale, and measure losses on all items.

    Every scale draws from the same seeds. Raises what drawing raises, and `DataError` without a usable picture.
    """
    order = how.settings.build_order(catalog)
    how.settings.check(model, order)
    pipeline = FluidPipeline(model)
    model.eval()
    note(f"Reading up to {items.count} real pictures")
    batches, losses, more_ids = [], [], []
    num_taken = 0
    for read in _in_batches(items, how.batch_size):
        losses.append(_caption_losses(model, read, seed=how.seed))
        wanted = [one for one in read if one.item.caption.strip()][: how.num_images - num_taken]
        num_taken += len(wanted)
        if wanted:
            batches.append(_real_batch(pipeline, wanted, seed=how.seed))
        if isinstance(model.tokenizer.token_space, DiscreteTokens):
            more_ids.append(_encoded_tokens(model, read, seed=how.seed)[0].cpu())
    if not batches:
        raise DataError("Expected at least one picture with a caption to draw for, found none.")
    drawn = []
    for scale in how.scales:
        note(f"Drawing {num_taken} pictures at guidance {scale:g}")
        drawn.append(_draw(pipeline, batches, attrs.evolve(how.settings, guidance=scale), order, seed=how.seed))
    used = order or model.order
    found = [one for one in losses if one is not None]
    return Evidence(
        grid=model.tokenizer.token_space.grid,
        token_space=model.tokenizer.token_space,
        real=RealPictures(
            pictures=torch.cat([batch.pictures for batch in batches]),
            tokens=torch.cat([batch.tokens for batch in batches]),
        ),
        drawn=tuple(drawn),
        real_ids=torch.cat(more_ids) if more_ids else None,
        caption_losses=None
        if not found
        else CaptionLosses(
            right=torch.cat([one.right for one in found]), wrong=torch.cat([one.wrong for one in found])
        ),
        head=None if model.config is None else model.config.head.name,
        one_after_the_other=(
            used.attention is AttentionPattern.CAUSAL and used.trained_permutations is TrainedPermutations.FIXED
        ),
        why_no_losses="" if found else "All captions are the same: there is no wrong one to compare with.",
    )


def gather_from_folder(
    folder: Path,
    items: NumberedItems | Callable[[tuple[int, int]], NumberedItems],
    model: FluidModel | None,
    *,
    num_images: int,
    batch_size: int,
    seed: int,
) -> Evidence:
    """Evidence from drawn picture files and real pictures; with `model`, both as its tokenizer sees them.

    Real pictures are read at the size of the model, or of the first picture in the folder. Raises `DataError` without
    pictures on either side.
    """
    generated = pictures_in_folder(folder)
    files = generated.files[:num_images]
    size = _size_of(files[0]) if model is None else model.tokenizer.image_size
    preparation = ImagePreparation(image_size=size)
    real_items = items if isinstance(items, NumberedItems) else items(size)
    guidance = None if generated.sampling is None else float(generated.sampling["settings"].get("guidance", 1.0))
    reason = "These are pictures from a folder: losses take the model that drew them."
    real, tokens, drawn, drawn_tokens = [], [], [], []
    for read in _in_batches(real_items, batch_size):
        if model is not None:
            batch = _real_batch(FluidPipeline(model), read, seed=seed)
            real.append(batch.pictures)
            tokens.append(batch.tokens)
        else:
            real += [_unit(one.item.image)[None] for one in read if isinstance(one.item, CaptionedImage)]
    if not real:
        raise DataError("Expected real pictures to compare with, found none that can be read.")
    for first in range(0, len(files), batch_size):
        images = torch.stack([preparation.prepared(file) for file in files[first : first + batch_size]])
        drawn.append(_unit(images))
        if model is not None:
            keys = KeyedRandom(torch.arange(first, first + len(images), device=model.device)).child(seed)
            drawn_tokens.append(model.tokens(images.to(model.device), random=keys).cpu())
    return Evidence(
        grid=_grid_of(size) if model is None else model.tokenizer.token_space.grid,
        token_space=None if model is None else model.tokenizer.token_space,
        real=RealPictures(pictures=torch.cat(real), tokens=torch.cat(tokens) if tokens else None),
        drawn=(
            DrawnPictures(
                pictures=torch.cat(drawn),
                guidance=guidance,
                tokens=torch.cat(drawn_tokens) if drawn_tokens else None,
            ),
        ),
        why_no_losses=reason,
    )


def _in_batches(items: NumberedItems, batch_size: int) -> Iterator[list[NumberedItem]]:
    for first in range(0, items.count, batch_size):
        read = items.read(range(first, min(first + batch_size, items.count)))
        if read:
            yield read


def _encoded_tokens(model: FluidModel, read: Sequence[NumberedItem], *, seed: int) -> tuple[Tensor, EncodedBatch]:
    """Tokens of real pictures, each from random numbers of its own, and the batch they come from."""
    batch = stack_items([one.item for one in read])
    encoded = batch if isinstance(batch, EncodedBatch) else model.encode(batch.images, batch.captions)
    keys = KeyedRandom(torch.tensor([one.number for one in read], device=model.device)).child(seed)
    with torch.no_grad():
        precomputed = {name: tensor.to(model.device) for name, tensor in encoded.precomputed.items()}
        return model.tokenizer.tokens(precomputed, random=keys), encoded


def _real_batch(pipeline: FluidPipeline, read: Sequence[NumberedItem], *, seed: int) -> _RealBatch:
    tokens, encoded = _encoded_tokens(pipeline.model, read, seed=seed)
    return _RealBatch(
        tokens=tokens.cpu(), pictures=pipeline.decode(tokens).cpu(), captions=encoded.captions, text=encoded.text
    )


def _draw(
    pipeline: FluidPipeline,
    batches: Sequence[_RealBatch],
    settings: SamplingSettings,
    order: OrderPolicy | None,
    *,
    seed: int,
) -> DrawnPictures:
    seeds = image_seeds(sum(len(batch.captions) for batch in batches), seed, None)
    tokens, steps, known_before = [], [], []
    first = 0
    for batch in batches:
        watch = _Watch()
        count = len(batch.captions)
        output = pipeline(
            None if batch.text is not None else list(batch.captions),
            prompt_embeds=batch.text,
            seed=seeds[first : first + count],
            order=order,
            output_type="tokens",
            callback_on_step_end=watch,
            **settings.call_arguments,
        )
        first += count
        tokens.append(output.tokens)
        steps.append(watch.step)
        known_before.append(watch.known_before)
    return DrawnPictures(
        pictures=torch.cat([pipeline.decode(one).cpu() for one in tokens]),
        guidance=settings.guidance,
        tokens=torch.cat(tokens).cpu(),
        step=torch.cat(steps).cpu(),
        known_before=torch.cat(known_before).cpu(),
    )


class _Watch:
    """Told after each step, remembers for every token when it came, and how much of the picture was known by then."""

    step: Tensor
    known_before: Tensor

    def __init__(self) -> None:
        self._known: Tensor | None = None

    def __call__(self, progress: GenerationProgress) -> None:
        if self._known is None:
            self._known = torch.zeros_like(progress.known)
            self.step = torch.zeros_like(progress.known, dtype=torch.int64)
            self.known_before = torch.zeros_like(progress.known, dtype=torch.float32)
        new = progress.known & ~self._known
        share = self._known.float().mean(dim=1, keepdim=True).expand_as(new)
        self.step[new] = progress.step - 1
        self.known_before[new] = share[new]
        self._known = progress.known


def _caption_losses(model: FluidModel, read: Sequence[NumberedItem], *, seed: int) -> CaptionLosses | None:
    """Losses of the pictures of a batch for which there is another caption in it."""
    pairs = [(one, other) for one in read if (other := _other_caption(one, read)) is not None]
    if not pairs:
        return None
    right = [one for one, _ in pairs]
    wrong = [attrs.evolve(one, item=_with_text_of(one.item, other.item)) for one, other in pairs]
    values = []
    for chosen in (right, wrong):
        losses = keyed_losses(model, chosen, seed=seed, num_draws=NUM_LOSS_DRAWS)
        values.append(losses.totals["loss"].sum(dim=1) / losses.num_tokens.sum(dim=1))
    return CaptionLosses(right=values[0], wrong=values[1])


def _other_caption(one: NumberedItem, read: Sequence[NumberedItem]) -> NumberedItem | None:
    """The next item of the batch, in a circle, whose caption says something else and says anything."""
    place = next(index for index, item in enumerate(read) if item is one)
    if not one.item.caption.strip():
        return None
    circle = [*read[place + 1 :], *read[:place]]
    return next((item for item in circle if item.item.caption.strip() not in ("", one.item.caption.strip())), None)


def _with_text_of(
    item: CaptionedImage | EncodedImage, other: CaptionedImage | EncodedImage
) -> CaptionedImage | EncodedImage:
    if isinstance(item, EncodedImage) and isinstance(other, EncodedImage):
        return attrs.evolve(item, caption=other.caption, text=other.text)
    return attrs.evolve(item, caption=other.caption)


def _unit(images: Tensor) -> Tensor:
    return ((images.float() + 1.0) / 2.0).clamp(0.0, 1.0)


def _size_of(file: Path) -> tuple[int, int]:
    """Height and width of a picture. Raises `DataError` for a file that is none."""
    from PIL import Image

    try:
        with Image.open(file) as picture:
            return picture.height, picture.width
    except (OSError, ValueError) as error:
        raise DataError(f"Could not read the picture {file}: {error}.") from error


def _grid_of(size: tuple[int, int]) -> Grid:
    """Patches of 16 pixels, or smaller ones of small pictures."""
    patch = max(2, min(_PATCH, min(size) // _FEWEST_PATCHES))
    return Grid(height=max(1, size[0] // patch), width=max(1, size[1] // patch))
