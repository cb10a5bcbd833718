"""What a call of a pipeline returns, and pictures in the forms that people ask for."""

from typing import Any

import attrs
import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image
from torch import Tensor

from fluid_core.exchange import SamplerBackend
from fluid_core.pipeline.call_settings import OutputType
from fluid_core.pipeline.drawing import Drawing


@attrs.frozen(kw_only=True)
class PipelineOutput:
    """What a call returns.

    `images` are PIL images, an array `images height width 3` or a tensor `images 3 height width` with values in [0, 1],
    or None where only tokens were asked for. `tokens` are always there.
    """

    images: Any
    tokens: Shaped[Tensor, "images length *token"]
    seeds: tuple[int, ...]
    """Seed of each image: the same seed, prompt and settings give the same image, whatever else is in the batch."""

    head_backend: SamplerBackend
    """Which implementation of the head's sampler ran: `reference` or `fused`."""


def pipeline_output(
    drawing: Drawing,
    tokens: Shaped[Tensor, "images length *token"],
    images: Float[Tensor, "images 3 height width"] | None,
    output_type: OutputType,
) -> PipelineOutput:
    """The result of a drawing, with its images in the form that was asked for."""
    return PipelineOutput(
        images=_as(images, output_type), tokens=tokens, seeds=drawing.seeds, head_backend=drawing.sampler.backend
    )


def to_pil(images: Float[Tensor, "images 3 height width"]) -> list[Image.Image]:
    """PIL images of pictures with values in [0, 1]."""
    array = images.permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(pixels) for pixels in (array * 255.0).round().astype(np.uint8)]


def _as(images: Tensor | None, output_type: OutputType) -> Any:
    if images is None or output_type == "pt":
        return images
    return to_pil(images) if output_type == "pil" else images.permute(0, 2, 3, 1).cpu().numpy()
