"""Training from a cache of tokens is training from the images it was made of.

A tokenizer that computes each image by itself to the bit, whatever else is in its batch, gives bit-equal runs. Where
sums are cut otherwise in batches of other sizes (convolutions, text encoders) a run is bit-equal if both sides encode
in batches of one, and equal within rounding otherwise.
"""

import io
import json

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from fluid_core.catalog import installed_components
from fluid_core.configuration import ComponentChoice
from fluid_core.data.token_cache.options import CacheBuildOptions
from fluid_core.data.token_cache.progress import CacheProgress
from fluid_core.errors import CheckpointMismatchError
from fluid_core.evaluation.validation_loss import validation_loss
from fluid_core.training.cache_building import cache_builder
from fluid_core.training.sight.metrics import OF_THE_MACHINE, read_metrics

SETTINGS = {"num_steps": 6, "checkpoint_every": 3, "num_validation_images": 4, "num_fit_images": 12}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of 24 noisy pictures with captions of different lengths."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    lines = []
    for index in range(24):
        name = f"{index:02d}.png"
        Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(folder / name)
        lines.append(json.dumps({"file_name": name, "text": f"picture {index} " + "of noise " * (index % 4)}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))
    return folder


def images_of(folder, **options):
    """The pictures as the data of a configuration."""
    choice = {"path": str(folder), "validation_fraction": 0.2, **options}
    return ComponentChoice(name="image-folder", options=choice)


def cached(config, folder, **options):
    """The configuration with a cache of its data, which is built in `folder`."""
    cache_builder(
        config,
        folder,
        CacheBuildOptions(**{"batch_size": 5, **options}),
        device="cpu",
        progress=CacheProgress(Console(file=io.StringIO())),
    ).build()
    return from_cache(config, folder)


def from_cache(config, folder):
    """The configuration with the cache in `folder` as its data."""
    return attrs.evolve(config, data=ComponentChoice(name="token-cache", options={"path": str(folder)}))


def losses(trainer):
    """Everything a run has measured of each step, clocks aside."""
    rows = read_metrics(trainer.folder / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in OF_THE_MACHINE} for row in rows]


def weights(trainer):
    """All weights a run ended with, those of the tokenizer among them."""
    return trainer.model.saved_state()


def check_equal_runs(one, other):
    """Losses, their parts, norms of gradients and weights agree to the bit."""
    assert losses(one) == losses(other)
    assert any("validation_loss" in row for row in losses(one))
    assert [name for name, tensor in weights(one).items() if not torch.equal(tensor, weights(other)[name])] == []


@pytest.mark.parametrize(("tokens", "order"), [("continuous", "random"), ("discrete", "raster")])
def test_training_from_a_cache_is_training_from_images(run_config, make_trainer, tmp_path, pictures, tokens, order):
    """Pixel patches and codes, with mirrored copies: each loss, gradient norm and weight is bit-equal."""
    config = run_config(tokens, order, {"data": images_of(pictures, horizontal_flip=True)}, **SETTINGS)
    images = make_trainer(config, tmp_path / "images")
    images.train()
    alike = make_trainer(cached(config, tmp_path / "cache"), tmp_path / "alike")
    alike.train()
    check_equal_runs(images, alike)
    assert "fitting" not in alike.progress.output.getvalue()

    unflipped = run_config(tokens, order, {"data": images_of(pictures)}, **SETTINGS)
    flipped = make_trainer(cached(unflipped, tmp_path / "both", both_flips=True), tmp_path / "flipped")
    assert len(flipped.train_data) == len(images.train_data)
    flipped.train()
    check_equal_runs(images, flipped)


@pytest.fixture(scope="module")
def real_parts(tmp_path_factory):
    """An AutoencoderKL of diffusers and a T5, both tiny, in folders of their own."""
    folder = tmp_path_factory.mktemp("parts")
    kl = installed_components().find("tokenizer", "kl-autoencoder").example_options(folder)
    t5 = installed_components().find("text-encoder", "t5").example_options(folder / "t5")
    return {
        "tokenizer": ComponentChoice(
            name="kl-autoencoder", options={"path": kl.path, "image_size": 16, "patch_size": 2}
        ),
        "text_encoder": ComponentChoice(name="t5", options={"path": t5.path}),
    }


def test_a_variational_autoencoder_and_t5_one_by_one(run_config, make_trainer, tmp_path, pictures, real_parts):
    """Encoded in batches of one on both sides, moments and text states make a bit-equal run: what is drawn from the
    posterior is drawn while training, from the same random numbers.
    """
    parts = {**real_parts, "data": images_of(pictures, horizontal_flip=True)}
    config = run_config(parts=parts, **{**SETTINGS, "batch_size": 1, "num_validation_images": 1})
    images = make_trainer(config, tmp_path / "images")
    images.train()
    alike = make_trainer(cached(config, tmp_path / "cache", batch_size=1), tmp_path / "alike")
    assert alike.train_data[0].text is not None
    alike.train()
    check_equal_runs(images, alike)


def test_a_variational_autoencoder_and_t5_in_batches(run_config, make_trainer, tmp_path, pictures, real_parts):
    """Encoded in batches of other sizes than in training, losses agree within the rounding of float32."""
    parts = {**real_parts, "data": images_of(pictures, horizontal_flip=True)}
    config = run_config(parts=parts, **SETTINGS)
    images = make_trainer(config, tmp_path / "images")
    images.train()
    alike = make_trainer(cached(config, tmp_path / "cache"), tmp_path / "alike")
    alike.train()
    assert len(losses(images)) == len(losses(alike)) == 8
    for one, other in zip(losses(images), losses(alike), strict=True):
        assert one == pytest.approx(other, rel=1e-6)


def test_other_text_states_make_another_run(run_config, make_trainer, tmp_path, pictures, real_parts):
    """Rounded to bfloat16, moments and states change the losses: the comparison above would notice."""
    parts = {**real_parts, "data": images_of(pictures)}
    config = run_config(parts=parts, **SETTINGS)
    images = make_trainer(config, tmp_path / "images")
    images.train()
    rounded = cached(config, tmp_path / "cache", dtype="bfloat16", text_dtype="bfloat16")
    alike = make_trainer(rounded, tmp_path / "alike")
    alike.train()
    # The head of a fresh model ignores what it sees, so its first loss says nothing.
    one, other = losses(images)[-1], losses(alike)[-1]
    assert one["validation_loss"] != pytest.approx(other["validation_loss"], rel=1e-6)
    assert one["validation_loss"] == pytest.approx(other["validation_loss"], rel=0.1)


def test_a_killed_run_from_a_cache_continues_bit_equal(run_config, make_trainer, tmp_path, pictures):
    """The position in the cache follows from the step, as with files; the cache may have moved meanwhile."""
    config = run_config("discrete", "random", {"data": images_of(pictures)}, **SETTINGS)
    config = cached(config, tmp_path / "cache")
    whole = make_trainer(config, tmp_path / "whole")
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        make_trainer(config, tmp_path / "killed", stop_after=5).train()
    (tmp_path / "cache").rename(tmp_path / "moved")
    resumed = make_trainer(from_cache(config, tmp_path / "moved"), tmp_path / "killed", resume=True)
    assert resumed.step == 3
    resumed.train()
    check_equal_runs(whole, resumed)


def test_a_cache_of_other_weights_is_refused_before_the_run(run_config, make_trainer, tmp_path, pictures, real_parts):
    """Another autoencoder is named beside that of the cache, and the run does not claim its folder."""
    config = run_config(parts={**real_parts, "data": images_of(pictures)}, **SETTINGS)
    cached(config, tmp_path / "cache")
    other = installed_components().find("tokenizer", "kl-autoencoder").example_options(tmp_path / "other")
    import diffusers

    changed = diffusers.AutoencoderKL.from_pretrained(other.path)
    with torch.no_grad():
        changed.encoder.conv_in.weight.add_(0.01)
    changed.save_pretrained(other.path)
    choice = ComponentChoice(name="kl-autoencoder", options={"path": other.path, "image_size": 16, "patch_size": 2})
    wrong = from_cache(attrs.evolve(config, tokenizer=choice), tmp_path / "cache")
    sides = r"tokenizer: kl-autoencoder \(identity \w+, float32 weights\) in the cache, KLAutoencoder \(identity \w+"
    with pytest.raises(CheckpointMismatchError, match=sides):
        make_trainer(wrong, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_cache_without_text_states_trains_too(run_config, make_trainer, tmp_path, pictures, real_parts):
    """Captions alone are encoded while training, to the losses of training from images."""
    parts = {"text_encoder": real_parts["text_encoder"], "data": images_of(pictures)}
    config = run_config(parts=parts, **SETTINGS)
    images = make_trainer(config, tmp_path / "images")
    images.train()
    alike = make_trainer(cached(config, tmp_path / "cache", text=False), tmp_path / "alike")
    alike.train()
    check_equal_runs(images, alike)


def test_validation_takes_items_of_a_cache(run_config, make_trainer, tmp_path, pictures):
    """The validation loss of cached items is that of their pictures."""
    config = run_config(parts={"data": images_of(pictures)}, **SETTINGS)
    trainer = make_trainer(cached(config, tmp_path / "cache"), tmp_path / "run")
    picture_trainer = make_trainer(config, tmp_path / "images")
    encoded = [trainer.validation_data[index] for index in range(3)]
    shown = [picture_trainer.validation_data[index] for index in range(3)]
    assert validation_loss(trainer.model, encoded) == validation_loss(trainer.model, shown)
