"""What the tests of a tokenizer start from: the tokenizer, fitted if it learns from images, and pictures."""

from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from fluid_core.keyed_random import KeyedRandom
from fluid_core.protocols import LearnsFromImages, Tokenizer
from fluid_core.testing import example_tokens as examples
from fluid_core.testing.conformance_suite import ConformanceSuite
from fluid_core.testing.global_random_state import seeded


class TokenizerCase(ConformanceSuite):
    """Supplies the tokenizer and what its tests need. The tests themselves are in `TokenizerSuite`."""

    kind = "tokenizer"
    supplier = "tokenizer"

    reconstruction_error: float | None = None
    """Root mean square error, in units of the range [-1, 1], that encoding and decoding the images it was fitted on
    may have. None promises nothing: a pretrained architecture with random weights."""

    num_images: int = 24
    """How many pictures a tokenizer that learns from images is fitted on."""

    tolerance: float = 1e-4
    """How far tokens and pixels may differ when only the batch around them changes."""

    def tokenizer(self) -> Tokenizer:
        """The tokenizer to test, before any `fit`. By default the installed one called `component`."""
        built: Tokenizer = self.build()
        return built

    def images(self, count: int, *, image_size: tuple[int, int], seed: int) -> Float[Tensor, "count 3 height width"]:
        """Pictures in [-1, 1]: two rectangles on a plain ground. Define it for a tokenizer that expects others."""
        generator = torch.Generator().manual_seed(seed)
        height, width = image_size
        colours = torch.rand(count, 3, 3, 1, 1, generator=generator) * 2 - 1
        rows, columns = torch.arange(height)[:, None], torch.arange(width)
        pictures = colours[:, 0].repeat(1, 1, height, width)
        for layer in (1, 2):
            top, bottom = _span(count, height, generator)
            left, right = _span(count, width, generator)
            inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
            pictures = torch.where(inside[:, None], colours[:, layer], pictures)
        return pictures

    def example_tokens(self, count: int, *, generator: torch.Generator) -> Shaped[Tensor, "count *token"]:
        """Random tokens of the tokenizer's space, as a model may draw them. Define it for a space of your own."""
        return examples.example_tokens(self._tokenizer().token_space, count, generator=generator)

    def _tokenizer(self, *, seed: int = 0) -> Any:
        with seeded(seed):
            return self.tokenizer()

    def _fitted(self, *, seed: int = 0, fit_seed: int = 0) -> Any:
        """A tokenizer ready for use."""
        tokenizer = self._tokenizer(seed=seed)
        if learns_from_images(tokenizer) and not tokenizer.fitted:
            tokenizer.fit(self._pictures(tokenizer, self.num_images), seed=fit_seed)
        return tokenizer

    def _pictures(self, tokenizer: Tokenizer, count: int, *, seed: int = 0) -> Tensor:
        return self.images(count, image_size=tokenizer.image_size, seed=seed)

    def _encode(self, tokenizer: Tokenizer, images: Tensor, keys: Tensor | None = None) -> Tensor:
        keys = torch.arange(len(images)) if keys is None else keys
        with torch.no_grad():
            return tokenizer.tokens(tokenizer.precompute(images), random=KeyedRandom(keys))

    def _decode(self, tokenizer: Tokenizer, tokens: Tensor) -> Tensor:
        with torch.no_grad():
            return tokenizer.decode(tokens)


def learns_from_images(tokenizer: object) -> bool:
    """Whether the tokenizer has the ability `LearnsFromImages`."""
    return isinstance(tokenizer, LearnsFromImages)


def _span(count: int, length: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Start and end of a stretch of 0 ... length for each of `count` pictures."""
    ends = torch.randint(length + 1, (count, 2, 1, 1), generator=generator).sort(dim=1).values
    return ends[:, 0], ends[:, 1]
