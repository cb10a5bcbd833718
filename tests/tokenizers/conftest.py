"""Pictures for the tests of tokenizers: a few flat shapes with soft edges."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch


def _scenes(count: int, seed: int, size: int = 32, *, flat: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator)

    axis = torch.arange(size) + 0.5

    def colours() -> torch.Tensor:
        drawn = draw(count, 3, 1, 1, low=-1, high=1)
        return drawn.sign() if flat else drawn

    images = torch.ones(count, 3, 1, 1) if flat else colours()
    images = images.repeat(1, 1, size, size)
    for _ in range(3):
        x = (axis - draw(count, 1, low=0.2 * size, high=0.8 * size))[:, None, :]
        y = (axis - draw(count, 1, low=0.2 * size, high=0.8 * size))[:, :, None]
        disc, square = torch.hypot(x, y), torch.maximum(x.abs(), y.abs())
        distance = torch.where(draw(count, 1, 1) < 0.5, disc, square)
        inside = (draw(count, 1, 1, low=0.1 * size, high=0.25 * size) - distance + 0.5).clamp(0, 1)[:, None]
        images = images * (1 - inside) + colours() * inside
    return images


@pytest.fixture
def scenes() -> Callable[..., torch.Tensor]:
    """`scenes(count, seed, size=32, flat=False)`: images in [-1, 1] with three discs or squares each.

    Where `flat`, they lie on white and have one of eight colours, so that most patches repeat exactly.
    """
    return _scenes


@pytest.fixture(scope="session")
def tiny_autoencoders():
    """Functions `kl`, `vq`, `tiny` and `dc` that make autoencoders of diffusers with random weights."""
    # diffusers takes seconds to import, and the tests of patches need none of it.
    spec = importlib.util.spec_from_file_location("tiny_autoencoders", Path(__file__).parent / "tiny_autoencoders.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
