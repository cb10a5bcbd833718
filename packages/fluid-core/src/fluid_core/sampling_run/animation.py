"""A picture emerging in its order, as an animated GIF."""

import io
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from fluid_core.atomic_files import write_bytes

NUM_FRAMES = 40
"""Frames of an animation at most: orders with more steps show some of them."""

_SHOWN_WIDTH = 256
_SECONDS = 4.0
_LAST_SECONDS = 1.5


class AnimationFrames:
    """Collects previews of a batch while it is drawn, as bytes: a few of them where an order takes many steps."""

    def __init__(self) -> None:
        self._frames: list[UInt8[Tensor, "images height width 3"]] = []

    @staticmethod
    def shows(step: int, num_steps: int) -> bool:
        """Whether the state after this step, counted from 1, is one of the frames; the last one always is."""
        if num_steps <= NUM_FRAMES or step >= num_steps:
            return True
        return step * NUM_FRAMES // num_steps > (step - 1) * NUM_FRAMES // num_steps

    def add(self, previews: Float[Tensor, "images 3 height width"]) -> None:
        """The state of all pictures of the batch after a step, with values in [0, 1]."""
        pixels = (previews.detach().float().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)
        self._frames.append(pixels.permute(0, 2, 3, 1).cpu())

    def save(self, index: int, path: Path) -> None:
        """Write the animation of one picture of the batch, whole or not at all."""
        save_animation([Image.fromarray(np.asarray(frame[index])) for frame in self._frames], path)


def save_animation(frames: list[Image.Image], path: Path) -> None:
    """Write a GIF that runs for about four seconds, rests on its last frame, and starts again.

    Small pictures are enlarged without smoothing. Raises `OutputError` if the file can not be written.
    """
    scale = max(1, _SHOWN_WIDTH // max(frames[0].size))
    size = (frames[0].width * scale, frames[0].height * scale)
    shown = [frame.convert("RGB").resize(size, Image.Resampling.NEAREST) for frame in frames]
    # The last frame has the colours of the finished picture; one palette for all keeps known parts from flickering.
    palette = shown[-1].quantize(255, method=Image.Quantize.MEDIANCUT)
    _with_grey(palette)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in shown]
    # In hundredths of a second, as the format has it, and slow enough for viewers that refuse to hurry.
    milliseconds = max(40, round(_SECONDS * 100 / len(frames)) * 10)
    durations = [milliseconds] * (len(frames) - 1) + [round(_LAST_SECONDS * 1000)]
    content = io.BytesIO()
    indexed[0].save(
        content, format="GIF", save_all=True, append_images=indexed[1:], duration=durations, loop=0, optimize=False
    )
    write_bytes(path, content.getvalue())


def _with_grey(palette: Image.Image) -> None:
    """Put the grey of positions that are unknown yet into a palette of up to 255 colours."""
    colours = (palette.getpalette() or [])[: 255 * 3]
    palette.putpalette([*colours, *[0] * (255 * 3 - len(colours)), 128, 128, 128])
