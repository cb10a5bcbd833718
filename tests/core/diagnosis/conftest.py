"""Evidence made of real pictures on both sides, and ways to spoil the drawn side."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from torch import Tensor

from fluid_core import FluidPipeline
from fluid_core.assembly import build_dataset
from fluid_core.catalog import installed_components
from fluid_core.configuration import ComponentChoice, config_to_json
from fluid_core.data.numbered_items import NumberedItems
from fluid_core.diagnosis.evidence import DrawnPictures, Evidence, RealPictures
from fluid_core.diagnosis.gathering import HowToDraw, gather_from_model
from fluid_core.exchange import DatasetContext
from fluid_core.keyed_random import KeyedRandom
from fluid_core.sampling_run.settings import SamplingSettings

SHAPES = ComponentChoice(name="shapes", options={"layout": "quadrants", "max_objects": 2})
NUM_PICTURES = 64


@attrs.frozen(kw_only=True, eq=False)
class Tokenized:
    """A fitted tokenizer, and tokens of two disjoint sets of pictures."""

    tokenizer: Any
    real: Tensor
    others: Tensor

    def pictures(self, tokens: Tensor) -> Tensor:
        """In [0, 1]."""
        return ((self.tokenizer.decode(tokens) + 1) / 2).clamp(0, 1)

    def encoded(self, images: Tensor) -> Tensor:
        """Tokens of images in [-1, 1]."""
        return self.tokenizer.tokens(self.tokenizer.precompute(images), random=KeyedRandom(torch.arange(len(images))))

    def drawn(
        self, tokens: Tensor | None = None, *, guidance: float = 1.0, order: str = "raster", num_steps: int = 16
    ) -> DrawnPictures:
        """`tokens`, by default those of other real pictures, as if drawn in equal steps."""
        tokens = self.others if tokens is None else tokens
        length = tokens.shape[1]
        rank = torch.arange(length).repeat(len(tokens), 1)
        if order == "random":
            rank = torch.rand(len(tokens), length, generator=torch.Generator().manual_seed(3)).argsort(1).argsort(1)
        step = rank * num_steps // length
        return DrawnPictures(
            pictures=self.pictures(tokens),
            guidance=guidance,
            tokens=tokens,
            step=step,
            known_before=(step * length // num_steps) / length,
        )

    def evidence(self, *drawn: DrawnPictures, **others: Any) -> Evidence:
        """With the real pictures on the other side."""
        return Evidence(
            grid=self.tokenizer.token_space.grid,
            token_space=self.tokenizer.token_space,
            real=RealPictures(pictures=self.pictures(self.real), tokens=self.real),
            drawn=drawn or (self.drawn(),),
            **others,
        )


@pytest.fixture(scope="session")
def shape_images() -> Tensor:
    """Pictures of the data set of shapes, 32 x 32 pixels, in [-1, 1]."""
    dataset = build_dataset(SHAPES, DatasetContext(image_size=(32, 32), split="validation", seed=0))
    return torch.stack([dataset[index].image for index in range(2 * NUM_PICTURES)])


@pytest.fixture(scope="session")
def tokenized(shape_images) -> Callable[..., Tokenized]:
    """A function that fits a tokenizer of this name on the pictures and encodes them."""

    def make(name: str, **options: Any) -> Tokenized:
        tokenizer = installed_components().build("tokenizer", name, {"image_size": 32, "patch_size": 4, **options})
        tokenizer.fit(shape_images, seed=0)
        tokens = tokenizer.tokens(
            tokenizer.precompute(shape_images), random=KeyedRandom(torch.arange(len(shape_images)))
        )
        return Tokenized(tokenizer=tokenizer, real=tokens[:NUM_PICTURES], others=tokens[NUM_PICTURES:])

    return make


@pytest.fixture(scope="session")
def continuous(tokenized) -> Tokenized:
    """Patches of 4 x 4 pixels as vectors."""
    return tokenized("pixel-patches")


@pytest.fixture(scope="session")
def discrete(tokenized) -> Tokenized:
    """The same patches as ids of a codebook of 64."""
    return tokenized("patch-codebook", vocabulary_size=64)


@pytest.fixture(scope="session")
def gather() -> Callable[..., Evidence]:
    """A function that gathers evidence from a model and a data set, drawing 16 pictures at the scales given."""

    def make(model: Any, dataset: Any, *, scales: tuple[float, ...] = (1.0,), **settings: Any) -> Evidence:
        how = HowToDraw(settings=SamplingSettings(**settings), scales=scales, num_images=16, seed=0, batch_size=40)
        return gather_from_model(model, NumberedItems(dataset, len(dataset)), how, note=lambda _: None)

    return make


@pytest.fixture(scope="session")
def saved_model(small_model, small_config, tmp_path_factory) -> Path:
    """The folder of an untrained model of 24 x 24 pixels, in the folder of a run on shapes."""
    run = tmp_path_factory.mktemp("saved") / "tiny"
    run.mkdir()
    (run / "config.json").write_text(config_to_json(small_config(data=SHAPES)))
    FluidPipeline(small_model(), weights="ema").save_pretrained(run / "model")
    return run / "model"
