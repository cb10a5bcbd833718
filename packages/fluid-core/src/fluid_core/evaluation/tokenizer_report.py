"""Several tokenizers side by side on the same held-out pictures: figures, a page to read and a picture to look at."""

import hashlib
import importlib.metadata
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluid_core.assembly import build_dataset
from fluid_core.atomic_files import check_writable, write_bytes, write_json
from fluid_core.catalog import ComponentCatalog, installed_components
from fluid_core.configuration import ComponentChoice
from fluid_core.contact_sheet import save_image
from fluid_core.data.batches import readable_items, stack
from fluid_core.data.captioned_images import CaptionedImages, CaptionedStream
from fluid_core.errors import ConfigurationError
from fluid_core.evaluation.frechet_distance import feature_statistics
from fluid_core.evaluation.reconstruction import (
    LARGEST_PSNR,
    ReconstructionFigures,
    measure_reconstruction,
    reconstruct,
)
from fluid_core.evaluation.reconstruction_sheet import reconstruction_sheet
from fluid_core.evaluation.tokenizer_report_page import report_page
from fluid_core.evaluation.tokenizer_source import NamedTokenizer, named_tokenizers
from fluid_core.exchange import DatasetContext
from fluid_core.identity import identity_of
from fluid_core.pipeline import to_pil
from fluid_core.protocols import FeatureNetwork, LearnsFromImages
from fluid_core.training.devices import training_device

_PACKAGES = ("fluid-core", "fluid-tokenizers", "torch", "numpy", "diffusers", "transformers")


@attrs.frozen(kw_only=True)
class ReportSettings:
    """What is measured, on which pictures. Raises `ConfigurationError` for numbers below one."""

    data: ComponentChoice
    num_images: int = 500
    """Held-out pictures; fewer are taken if there are fewer."""

    num_fit_images: int = 2000
    """Training pictures shown to a tokenizer that learns from images and has not yet."""

    feature_network: ComponentChoice | None = None
    """For the Frechet distance; None leaves it out."""

    num_shown: int = 8
    batch_size: int = 32
    seed: int = 0
    device: str = "auto"

    def __attrs_post_init__(self) -> None:
        for name in ("num_images", "num_fit_images", "num_shown", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"Expected {name} to be 1 or more, found {getattr(self, name)}.")


@attrs.frozen(kw_only=True)
class TokenizerReport:
    """Figures of each tokenizer, by its label, and where everything was written."""

    figures: dict[str, ReconstructionFigures]
    folder: Path


def write_tokenizer_report(
    paths: Sequence[Path],
    settings: ReportSettings,
    folder: Path,
    *,
    catalog: ComponentCatalog | None = None,
    note: Callable[[str], None] | None = None,
) -> TokenizerReport:
    """Measure the tokenizers that `paths` name and write `report.md`, `report.json` and `reconstructions.png`.

    All see the same pictures, those of the data set's validation split, whose size must be that of every tokenizer.
    `note` is told what happens. Raises `ConfigurationError` for tokenizers of different image sizes, and what loading
    them, the data and the feature network raises; nothing is written before all is measured.
    """
    catalog = catalog or installed_components()
    note = note or _say_nothing
    check_writable(folder)
    device = training_device(settings.device, setting="--device")
    network = _feature_network(settings.feature_network, catalog, device)
    tokenizers = named_tokenizers(paths, catalog)
    image_size = _common_size(tokenizers)
    images, num_skipped = _pictures(settings, "validation", image_size, settings.num_images, catalog)
    _fit(tokenizers, settings, image_size, catalog, note)
    batches = [batch.to(device) for batch in torch.split(images, settings.batch_size)]
    originals = None if network is None else feature_statistics(network, batches)
    figures, rows = {}, [images[: settings.num_shown]]
    for one in tokenizers:
        started = time.perf_counter()
        _module(one).to(device)
        figures[one.label] = measure_reconstruction(
            one.tokenizer, batches, seed=settings.seed, network=network, originals=originals
        )
        shown = images[: settings.num_shown].to(device)
        rows.append(reconstruct(one.tokenizer, shown, seed=settings.seed)[2].cpu())
        _module(one).to("cpu")
        note(
            f"{one.label}: PSNR {figures[one.label].psnr:.2f} dB over {len(images)} pictures in "
            f"{time.perf_counter() - started:.1f} s"
        )
    document = _document(settings, tokenizers, figures, images, num_skipped, network)
    pictures = [to_pil((row / 2 + 0.5).clamp(0, 1)) for row in rows]
    labels = [["original"], *(_row_label(one, figures[one.label]) for one in tokenizers)]
    title = f"Reconstructions of held-out pictures of '{settings.data.name}'"
    save_image(reconstruction_sheet(pictures, labels, title=title), folder / "reconstructions.png")
    write_json(folder / "report.json", document)
    write_bytes(folder / "report.md", report_page(document).encode())
    return TokenizerReport(figures=figures, folder=folder)


def _say_nothing(_text: str) -> None:
    """What `note` does if nobody listens."""


def _feature_network(
    choice: ComponentChoice | None, catalog: ComponentCatalog, device: torch.device
) -> FeatureNetwork | None:
    if choice is None:
        return None
    network: FeatureNetwork = catalog.build("feature-network", choice.name, choice.options)
    module: object = network
    if isinstance(module, nn.Module):
        module.requires_grad_(False).eval().to(device)
    return network


def _module(one: NamedTokenizer) -> nn.Module:
    tokenizer: object = one.tokenizer
    assert isinstance(tokenizer, nn.Module)
    return tokenizer


def _common_size(tokenizers: Sequence[NamedTokenizer]) -> tuple[int, int]:
    sizes = {one.label: tuple(one.tokenizer.image_size) for one in tokenizers}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{label}: {height} x {width}" for label, (height, width) in sizes.items())
        raise ConfigurationError(
            f"Expected tokenizers for pictures of one size, to compare them on the same pictures, found {found}. Set "
            "image_size in their options, or write a report for each size."
        )
    return tokenizers[0].tokenizer.image_size


def _pictures(
    settings: ReportSettings, split: str, image_size: tuple[int, int], count: int, catalog: ComponentCatalog
) -> tuple[Float[Tensor, "count 3 height width"], int]:
    """Pictures of one split in an order drawn from the seed, and how many were skipped on the way."""
    context = DatasetContext(image_size=image_size, split=split, seed=settings.seed)
    dataset = build_dataset(settings.data, context, catalog)
    assert isinstance(dataset, CaptionedImages | CaptionedStream)
    read = readable_items(dataset, count, shuffle_seed=settings.seed)
    return stack(read.items).images, len(read.skipped)


def _fit(
    tokenizers: Sequence[NamedTokenizer],
    settings: ReportSettings,
    image_size: tuple[int, int],
    catalog: ComponentCatalog,
    note: Callable[[str], None],
) -> None:
    """Let those that learn from images see training pictures, as `fluid train` would."""
    images = None
    for one in tokenizers:
        tokenizer: object = one.tokenizer
        if not isinstance(tokenizer, LearnsFromImages) or tokenizer.fitted:
            continue
        if images is None:
            images, _ = _pictures(settings, "train", image_size, settings.num_fit_images, catalog)
        note(f"{one.label}: fitted on {len(images)} training pictures")
        tokenizer.fit(images, seed=settings.seed)


def _document(
    settings: ReportSettings,
    tokenizers: Sequence[NamedTokenizer],
    figures: Mapping[str, ReconstructionFigures],
    images: Float[Tensor, "count 3 height width"],
    num_skipped: int,
    network: FeatureNetwork | None,
) -> dict[str, Any]:
    """Everything that is needed to read the figures, and to measure them again."""
    device = training_device(settings.device, setting="--device")
    return {
        "settings": {
            "data": attrs.asdict(settings.data),
            "split": "validation",
            "num_images": len(images),
            "num_skipped": num_skipped,
            "num_fit_images": settings.num_fit_images,
            "image_size": list(images.shape[2:]),
            "pictures_sha256": hashlib.sha256(images.contiguous().numpy().tobytes()).hexdigest(),
            "batch_size": settings.batch_size,
            "seed": settings.seed,
            "device": str(device),
            "largest_psnr": LARGEST_PSNR,
            "feature_network": None
            if network is None or settings.feature_network is None
            else {**attrs.asdict(settings.feature_network), "description": network.name, "width": network.width},
        },
        "packages": _versions(),
        "tokenizers": [
            {
                "label": one.label,
                "source": one.source,
                "name": one.choice.name,
                "options": one.choice.options,
                "provided_by": one.origin,
                "identity": identity_of(attrs.asdict(one.choice), _module(one).state_dict()),
                "figures": attrs.asdict(figures[one.label]),
            }
            for one in tokenizers
        ],
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _row_label(one: NamedTokenizer, figures: ReconstructionFigures) -> list[str]:
    bits = figures.bits_per_image
    return [
        one.label,
        f"PSNR {figures.psnr:.1f} dB" if figures.psnr < LARGEST_PSNR else "exact",
        f"SSIM {figures.ssim:.3f}",
        f"{figures.tokens_per_image} tokens",
        f"{bits.stored:,.0f} bits stored" if bits.informative is None else f"{bits.informative:,.0f} bits",
    ]
