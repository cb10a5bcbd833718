"""A tiny cache for tests of what reads caches: thumbnails of drawn pictures, encoded and written like any other."""

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from fluid_core.data.options import ShapesOptions, TokenCacheOptions
from fluid_core.data.shapes.dataset import ShapesDataset
from fluid_core.data.skipped_items import SkippedItems
from fluid_core.data.token_cache.builder import CacheBuilder, CacheContents
from fluid_core.data.token_cache.encoding import CacheEncoder
from fluid_core.data.token_cache.manifest import CachedSource
from fluid_core.data.token_cache.options import CacheBuildOptions
from fluid_core.data.token_cache.parts import NamedPart
from fluid_core.data.token_cache.progress import CacheProgress
from fluid_core.data.token_cache.source import Source
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import ContinuousTokens, Grid, TokenSpace

_SIZE = 32
_PATCH = 8


class Thumbnails(nn.Module):
    """A tokenizer of sixteen tokens: the mean colours of squares."""

    def __init__(self) -> None:
        super().__init__()
        side = _SIZE // _PATCH
        self.image_size: tuple[int, int] = (_SIZE, _SIZE)
        self.token_space: TokenSpace = ContinuousTokens(grid=Grid(height=side, width=side), channels=3)

    def precompute(self, images: Float[Tensor, "batch 3 height width"]) -> dict[str, Tensor]:
        """`colours`: `batch length 3`."""
        return {"colours": functional.avg_pool2d(images, _PATCH).flatten(2).mT.contiguous()}

    def tokens(
        self,
        precomputed: Mapping[str, Tensor],
        *,
        random: KeyedRandom,  # noqa: ARG002  (nothing is drawn)
    ) -> Float[Tensor, "batch length 3"]:
        """The colours."""
        return precomputed["colours"]

    def decode(self, tokens: Float[Tensor, "batch length 3"]) -> Float[Tensor, "batch 3 height width"]:
        """Flat squares."""
        small = tokens.mT.reshape(-1, 3, _SIZE // _PATCH, _SIZE // _PATCH)
        return small.repeat_interleave(_PATCH, dim=2).repeat_interleave(_PATCH, dim=3).clamp(-1, 1)


def example_token_cache_options(folder: Path) -> TokenCacheOptions:
    """Options of a cache of twelve pictures and their mirror images, and four to validate on, built in `folder`."""
    choice = ShapesOptions(num_examples=12, num_validation_examples=4)
    tokenizer = Thumbnails()
    named = NamedPart(name="thumbnails", options={}, provided_by="an example")
    splits = ("train", "validation")
    contents = CacheContents(
        encoder=CacheEncoder(
            tokenizer=tokenizer, text_encoder=None, device=torch.device("cpu"), both_flips=True, text_dtype=None
        ),
        tokenizer=named.made_by(tokenizer),
        text_encoder=None,
        sources=tuple(Source(ShapesDataset(choice, tokenizer.image_size, split, 0), split) for split in splits),
        source=CachedSource(name="shapes", options={}, provided_by="an example", seed=0),
        crop="as the data set makes them",
    )
    path = folder / "cache"
    CacheBuilder(
        path,
        contents,
        CacheBuildOptions(both_flips=True, batch_size=4),
        progress=CacheProgress(Console(quiet=True)),
        skipped=SkippedItems(),
    ).build()
    return TokenCacheOptions(path=str(path))
