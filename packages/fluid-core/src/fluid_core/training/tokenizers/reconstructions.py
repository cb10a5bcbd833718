"""What a tokenizer in training gives back of pictures: how far it is off, and a sheet to look at."""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fluid_core.contact_sheet import save_image
from fluid_core.evaluation.image_similarity import psnr
from fluid_core.evaluation.reconstruction import LARGEST_PSNR, reconstruct
from fluid_core.evaluation.reconstruction_sheet import reconstruction_sheet
from fluid_core.evaluation_mode import evaluation_mode
from fluid_core.pipeline import to_pil
from fluid_core.protocols import Tokenizer

_BATCH_SIZE = 32


def reconstructed(
    tokenizer: Tokenizer, images: Float[Tensor, "count 3 height width"], *, device: torch.device
) -> Float[Tensor, "count 3 height width"]:
    """Images encoded to tokens and decoded, as a model would see them, on the CPU.

    The tokenizer evaluates meanwhile. A draw from a posterior follows from an image's place alone.
    """
    assert isinstance(tokenizer, nn.Module)
    found = []
    with evaluation_mode(tokenizer):
        for first in range(0, len(images), _BATCH_SIZE):
            batch = images[first : first + _BATCH_SIZE].to(device)
            found.append(reconstruct(tokenizer, batch, seed=0, first=first)[2].cpu())
    return torch.cat(found)


def mean_psnr(found: Float[Tensor, "count 3 height width"], wanted: Float[Tensor, "count 3 height width"]) -> float:
    """Mean over images of the peak signal-to-noise ratio in decibels, at most `LARGEST_PSNR` for each."""
    return float(psnr(found, wanted).clamp(max=LARGEST_PSNR).mean())


def save_reconstructions(
    path: Path,
    originals: Float[Tensor, "count 3 height width"],
    reconstructions: Float[Tensor, "count 3 height width"],
    *,
    title: str,
) -> None:
    """A sheet with reconstructions below their originals. Raises `OutputError` if it can not be written."""
    rows = [to_pil((images / 2 + 0.5).clamp(0, 1)) for images in (originals, reconstructions)]
    labels = [["originals"], ["reconstructions", f"{mean_psnr(reconstructions, originals):.1f} dB PSNR"]]
    save_image(reconstruction_sheet(rows, labels, title=title), path)
