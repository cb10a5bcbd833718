"""Statistics of token channels over a data set, one batch of images in memory at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import torch
from rich.console import Console
from rich.progress import Progress

from fluid_core.assembly import build_dataset
from fluid_core.catalog import ComponentCatalog, installed_components
from fluid_core.channel_moments import ChannelMoments
from fluid_core.configuration import ComponentChoice, FluidConfig
from fluid_core.data.batches import items_in_order, stack
from fluid_core.data.captioned_images import CaptionedImage, CaptionedImages, CaptionedStream
from fluid_core.data.skipped_items import SkippedItem
from fluid_core.errors import ConfigurationError, DataError
from fluid_core.exchange import DatasetContext, MeasuredChannels
from fluid_core.keyed_random import KeyedRandom
from fluid_core.protocols import MeasuresLatents
from fluid_core.training.devices import training_device


@attrs.frozen(kw_only=True, eq=False)
class LatentMeasurement:
    """What was measured, and where it was written."""

    moments: ChannelMoments
    """Of tokens with the tokenizer's own scaling, before statistics are applied."""

    num_images: int
    num_unreadable: int
    own_scale: float | None
    """The single factor of the tokenizer's own configuration, if it has one."""

    file: Path

    @property
    def unit_scale(self) -> float | None:
        """The single factor that gives all values together a standard deviation of one: MAR's rule for its 0.2325."""
        if self.own_scale is None:
            return None
        overall = self.moments.variance.mean() + self.moments.mean.var(correction=0)
        return self.own_scale / float(overall.sqrt())


def measure_latents(
    config: FluidConfig,
    *,
    num_images: int,
    file: Path | None,
    batch_size: int,
    device: str,
    seed: int,
    console: Console,
    catalog: ComponentCatalog | None = None,
) -> LatentMeasurement:
    """Encode `num_images` training images of a configuration and write the statistics of its tokenizer to `file`.

    None for `file` is the tokenizer's own place. Images are drawn from the data set by `seed`; fewer are taken if there
    are fewer. Progress goes to `console`. Raises `ConfigurationError` for a tokenizer that keeps no statistics in a
    file or has no place of its own, and for a configuration without data; `DataError` if no picture can be read.
    """
    catalog = catalog or installed_components()
    choice = config.tokenizer
    if config.data is None:
        raise ConfigurationError("Expected a [data] section to measure on, found a configuration without.")
    tokenizer: Any = catalog.build("tokenizer", choice.name, choice.options, root="$.tokenizer.options")
    if not isinstance(tokenizer, MeasuresLatents):
        raise ConfigurationError(
            f"Expected a tokenizer that keeps latent statistics in a file, found '{choice.name}', which does not: "
            "there is nothing to measure apart from training."
        )
    target = file or tokenizer.statistics_file
    if target is None:
        raise ConfigurationError(
            "Expected a place for the statistics, found a tokenizer without a local folder. Say where with --out FILE, "
            "and put that file into the option 'statistics' of the tokenizer."
        )
    context = DatasetContext(image_size=_module(tokenizer).image_size, split="train", seed=seed)
    dataset = build_dataset(config.data, context, catalog)
    assert isinstance(dataset, CaptionedImages | CaptionedStream)
    encoded = _encode(
        tokenizer, dataset, num_images, batch_size, training_device(device, setting="--device"), seed, console
    )
    moments = encoded.moments
    tokenizer.adopt_statistics(
        MeasuredChannels(
            mean=moments.mean,
            std=moments.variance.sqrt(),
            num_vectors=moments.count,
            num_images=encoded.num_images,
            source=_source(config.data),
        )
    )
    tokenizer.save_statistics(target)
    return LatentMeasurement(
        moments=moments,
        num_images=encoded.num_images,
        num_unreadable=encoded.num_unreadable,
        own_scale=tokenizer.own_scale,
        file=target,
    )


@attrs.define
class _Encoded:
    moments: ChannelMoments
    num_images: int = 0
    num_unreadable: int = 0


def _encode(
    tokenizer: MeasuresLatents,
    dataset: CaptionedImages | CaptionedStream,
    num_images: int,
    batch_size: int,
    device: torch.device,
    seed: int,
    console: Console,
) -> _Encoded:
    module = _module(tokenizer).to(device)
    encoded = _Encoded(ChannelMoments(module.token_space.channels))
    total = num_images if isinstance(dataset, CaptionedStream) else min(num_images, len(dataset))
    generator = torch.Generator().manual_seed(seed)
    reasons: list[str] = []
    with torch.no_grad(), Progress(console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("encoding images", total=total)
        for items in _batches(dataset, seed, total, batch_size, reasons):
            random = KeyedRandom.from_generator(generator, len(items), device)
            images = stack(items).images.to(device)
            tokens = tokenizer.unnormalized_tokens(module.precompute(images), random=random)
            encoded.moments.add(tokens.flatten(0, 1))
            encoded.num_images += len(items)
            bar.advance(task, len(items))
    if not encoded.num_images:
        listed = "".join(f"\n  {reason}" for reason in reasons[:5])
        raise DataError(f"Expected at least one picture that can be read, found none.{listed}")
    encoded.num_unreadable = len(reasons)
    return encoded


def _batches(
    dataset: CaptionedImages | CaptionedStream, seed: int, total: int, batch_size: int, reasons: list[str]
) -> Iterator[list[CaptionedImage]]:
    """`total` readable items in an order drawn from `seed`, in batches; why others were left out goes to `reasons`."""
    items: list[CaptionedImage] = []
    num_read = 0
    for item in items_in_order(dataset, shuffle_seed=seed):
        if isinstance(item, SkippedItem):
            reasons.append(item.reason)
            continue
        assert isinstance(item, CaptionedImage)
        items.append(item)
        num_read += 1
        if len(items) == batch_size:
            yield items
            items = []
        if num_read == total:
            break
    if items:
        yield items


def _module(tokenizer: MeasuresLatents) -> Any:
    """The tokenizer with everything else it is: a module and a `Tokenizer`, which the catalog has checked."""
    return tokenizer


def _source(data: ComponentChoice) -> str:
    """Which images, in words: the data set and the options that say where they come from."""
    places = [f"{key} {value}" for key, value in data.options.items() if isinstance(value, str)]
    return f"training images of '{data.name}'" + (f" ({', '.join(places)})" if places else "")
