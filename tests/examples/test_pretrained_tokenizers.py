"""The tokenizers in examples/pretrained: they load as configurations name them, and know what they were trained on."""

import tomllib
from pathlib import Path

import pytest
import torch

from fluid_core import KeyedRandom
from fluid_core.catalog import ComponentCatalog
from fluid_core.exchange import DatasetContext

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def catalog():
    """What is installed."""
    return ComponentCatalog.discover()


@pytest.fixture(scope="module")
def pictures(catalog):
    """Thirty-two held-out scenes of shapes."""
    context = DatasetContext(image_size=(64, 64), split="validation", seed=5)
    data = catalog.build("dataset", "shapes", {}, context)
    return torch.stack([data[index].image for index in range(32)])


@pytest.mark.parametrize(("name", "least"), [("kl", 28.0), ("vq", 26.0)])
def test_pictures_survive_the_tokenizer(catalog, pictures, monkeypatch, name, least):
    """Scenes of shapes come back with about the signal-to-noise ratio that the report states."""
    monkeypatch.chdir(ROOT)
    choice = tomllib.loads((ROOT / f"examples/pretrained/{name}.toml").read_text())["tokenizer"]
    tokenizer = catalog.build("tokenizer", choice["name"], choice["options"]).eval()
    with torch.no_grad():
        tokens = tokenizer.tokens(tokenizer.precompute(pictures), random=KeyedRandom(torch.arange(32)))
        tokenizer.token_space.validate(tokens)
        decoded = tokenizer.decode(tokens)
    error = ((decoded.clamp(-1, 1) - pictures) / 2).square().mean(dim=(1, 2, 3))
    assert float((-10 * error.log10()).mean()) > least
    assert tokenizer.token_space.grid.length == 64


def test_latents_are_normalised_by_the_statistics_beside_the_weights(catalog, pictures, monkeypatch):
    """Channels of the KL tokenizer have about unit variance without measuring anything anew."""
    monkeypatch.chdir(ROOT)
    options = {"path": "examples/pretrained/emoji-shapes-kl", "image_size": 64}
    tokenizer = catalog.build("tokenizer", "kl-autoencoder", options).eval()
    assert tokenizer.fitted
    tokens = tokenizer.tokens(tokenizer.precompute(pictures), random=KeyedRandom(torch.arange(32)))
    assert 0.6 < float(tokens.std()) < 1.4
