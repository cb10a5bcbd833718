"""Small models, a picture and masks for the tests of editing."""

import attrs
import numpy as np
import pytest
import torch
from PIL import Image

from fluid_core import FluidModel, FluidPipeline, KeyedRandom
from fluid_core.configuration import ComponentChoice
from fluid_tokenizers.autoencoder_examples import example_kl_options


@pytest.fixture
def pipeline(small_model):
    """A pipeline over 3 x 3 continuous tokens of 8 x 8 pixels, bidirectional in random order."""
    return FluidPipeline(small_model())


@pytest.fixture
def picture():
    """24 x 24 pixels of noise."""
    return noise(24, 24, seed=1)


@pytest.fixture
def mask():
    """White over the middle token and one row of pixels of the token above it."""
    values = np.zeros((24, 24), dtype=bool)
    values[7:16, 8:16] = True
    return Image.fromarray(values)


def noise(width, height, *, seed):
    """A PIL image whose pixels are all different."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def call():
    """Settings of a quick call that can be repeated."""
    return {"seed": 7, "num_inference_steps": 2, "output_type": "pt"}


@pytest.fixture
def noise_of():
    """The function that makes a picture of noise."""
    return noise


@pytest.fixture
def encoded():
    """A function from a pipeline, a PIL picture of the model's size and seeds to the tokenizer's own tokens."""

    def encode(pipeline, picture):
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None].float() / 255
        tokenizer = pipeline.model.tokenizer
        return tokenizer.tokens(tokenizer.precompute(2 * pixels - 1), random=KeyedRandom(torch.tensor([0])))

    return encode


@pytest.fixture
def autoencoder_model(small_model, tmp_path):
    """A function that makes a model over 4 x 4 tokens of a tiny KL autoencoder, 16 x 16 pixels in all.

    Every token of it sees far beyond its own pixels, and is a draw from a posterior.
    """

    def make(**others):
        path = example_kl_options(tmp_path).path
        model = small_model(**others)
        options = {"path": path, "image_size": 16, "patch_size": 2}
        config = attrs.evolve(model.config, tokenizer=ComponentChoice(name="kl-autoencoder", options=options))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            made = FluidModel.from_config(config)
        made.tokenizer.fit(torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1, seed=0)
        return made

    return make
