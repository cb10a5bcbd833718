"""`fluid tokenizer measure`: streamed statistics of a tokenizer over a data set."""

import json

import pytest
import torch
from typer.testing import CliRunner

from fluid_core.commands.program import app
from fluid_core.data.options import ShapesOptions
from fluid_core.data.shapes.dataset import ShapesDataset
from fluid_core.errors import ConfigurationError
from fluid_core.keyed_random import KeyedRandom
from fluid_tokenizers import KLAutoencoder, KLAutoencoderOptions

CONFIG = """
tokenizer = {{ name = "{name}", options = {{ {options} }} }}
text_encoder = {{ name = "bytes", options = {{ width = 16 }} }}
order = {{ name = "random" }}
head = {{ name = "diffusion" }}
backbone = {{ size = "debug" }}
data = {{ name = "shapes", options = {{ num_examples = 30, num_validation_examples = 4 }} }}
"""


@pytest.fixture
def folder(tiny_autoencoders, tmp_path):
    """A folder with a tiny AutoencoderKL."""
    tiny_autoencoders.kl(scaling_factor=0.5).save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


@pytest.fixture
def run(tmp_path):
    """A function that runs the command on a tokenizer: its result."""

    def call(name, options, *arguments):
        (tmp_path / "run.toml").write_text(CONFIG.format(name=name, options=options))
        return CliRunner().invoke(
            app, ["tokenizer", "measure", str(tmp_path / "run.toml"), "--device", "cpu", *map(str, arguments)]
        )

    return call


def test_statistics_are_those_of_all_vectors_at_once(run, folder):
    """Batches of 7 of 20 images give what one pass over everything gives, written beside the weights and used."""
    options = f'path = "{folder}", image_size = 16, patch_size = 2, sample_posterior = false'
    result = run("kl-autoencoder", options, "--images", 20, "--batch-size", 7)
    assert result.exit_code == 0, result.output
    tokenizer = KLAutoencoder(
        KLAutoencoderOptions(path=str(folder), image_size=16, patch_size=2, sample_posterior=False)
    )
    assert tokenizer.fitted
    dataset = ShapesDataset(ShapesOptions(num_examples=30, num_validation_examples=4), (16, 16), "train", 0)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0))[:20].tolist()
    images = torch.stack([dataset[index].image for index in order])
    vectors = tokenizer.unnormalized_tokens(tokenizer.precompute(images), random=KeyedRandom(torch.arange(20))).flatten(
        0, 1
    )
    torch.testing.assert_close(tokenizer.statistics.mean, vectors.double().mean(0).float(), rtol=1e-4, atol=1e-5)
    deviation = vectors.double().std(0, correction=0)
    torch.testing.assert_close(tokenizer.statistics.std, deviation.float(), rtol=1e-4, atol=0)
    written = json.loads((folder / "latent_statistics.json").read_text())
    assert (written["num_images"], written["num_vectors"]) == (20, 320)
    assert written["source"] == "training images of 'shapes'"
    # The table, and the single factor of MAR's rule beside the configuration's.
    assert "320 vectors of 20 images." in result.output
    overall = float(vectors.double().std(correction=0))
    assert f"would be {0.5 / overall:.5g}"[:14] in result.output
    assert "the autoencoder's configuration has 0.5." in result.output
    assert f"{float(deviation[15]):.4f}" in result.output


def test_more_images_than_there_are_and_another_place(run, folder, tmp_path):
    """All images are taken, and --out names the file."""
    out = tmp_path / "mine" / "statistics.json"
    result = run("kl-autoencoder", f'path = "{folder}", image_size = 16', "--images", 5000, "--out", out)
    assert result.exit_code == 0, result.output
    assert json.loads(out.read_text())["num_images"] == 30
    assert not (folder / "latent_statistics.json").exists()
    assert KLAutoencoder(KLAutoencoderOptions(path=str(folder), image_size=16, statistics=str(out))).fitted


def test_statistics_that_no_longer_fit_can_be_measured_anew(run, folder):
    """After a change of the grouping the tokenizer is refused, and the advice of that message works."""
    measured = run("kl-autoencoder", f'path = "{folder}", image_size = 16', "--images", 8)
    assert measured.exit_code == 0, measured.output
    grouped = f'path = "{folder}", image_size = 16, patch_size = 2'
    refused = run("kl-autoencoder", grouped, "--images", 8)
    assert "tokenizer.options.latents=scaled" in str(refused.exception)
    anew = run("kl-autoencoder", grouped, "tokenizer.options.latents=scaled", "--images", 8)
    assert anew.exit_code == 0, anew.output
    assert KLAutoencoder(KLAutoencoderOptions(path=str(folder), image_size=16, patch_size=2)).fitted


def test_tokenizers_without_a_file_are_refused(run, folder):
    """One that keeps no statistics in a file, and one without a folder of its own."""
    result = run("pixel-patches", "image_size = 16")
    assert isinstance(result.exception, ConfigurationError)
    assert "found 'pixel-patches', which does not" in str(result.exception)
    architecture = (
        'image_size = 16, architecture = { class = "AutoencoderKL", norm_num_groups = 2, block_out_channels = [4] }'
    )
    result = run("kl-autoencoder", architecture)
    assert isinstance(result.exception, ConfigurationError)
    assert "--out FILE" in str(result.exception)
