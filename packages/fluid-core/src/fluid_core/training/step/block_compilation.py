"""Compiling the transformer blocks."""

from collections.abc import Callable
from typing import Any

from fluid_core.model import FluidModel


def compile_blocks(model: FluidModel, backend: str | Callable[..., Any] = "inductor") -> None:
    """Compile every block of the backbone in place, with `torch.compile`; names of weights stay what they were.

    Blocks share their code, so that one of them pays for all, and a second length of text pays once more; in random
    order the last block, which finishes fewer rows, pays for itself. What is between the blocks, the aligner and the
    head stay eager.
    """
    for block in model.transformer.blocks:
        block.compile(backend=backend)
