"""Whole models with an autoencoder: saved, moved, trained and resumed without its weights being held twice."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from fluid_core import FluidConfig, FluidModel, FluidPipeline, Trainer
from fluid_core.configuration import BackboneConfig, ComponentChoice, TrainingConfig
from fluid_core.errors import CheckpointError, CheckpointMismatchError

CALL = {"seed": 11, "output_type": "pt", "num_inference_steps": 4}
KL = {"image_size": 16, "patch_size": 2}
HEADS = {
    "kl-autoencoder": ComponentChoice(
        name="diffusion", options={"depth": 1, "timesteps_per_token": 1, "num_sampling_steps": 2}
    ),
    "vq-autoencoder": ComponentChoice(name="softmax"),
}


def _config(name, options, **others) -> FluidConfig:
    return FluidConfig(
        tokenizer=ComponentChoice(name=name, options=options),
        text_encoder=ComponentChoice(name="bytes", options={"width": 16}),
        order=ComponentChoice(name="random"),
        head=HEADS[name],
        backbone=BackboneConfig(size="debug"),
        **others,
    )


@pytest.fixture
def weights(tiny_autoencoders, tmp_path):
    """A folder like that of a pipeline: a KL autoencoder in `vae` and a VQGAN in `vqgan`."""
    tiny_autoencoders.kl().save_pretrained(tmp_path / "weights" / "vae")
    tiny_autoencoders.vq().save_pretrained(tmp_path / "weights" / "vqgan")
    return tmp_path / "weights"


def _model(config, scenes):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = FluidModel.from_config(config)
        with torch.no_grad():
            for parameter in model.head.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    if hasattr(model.tokenizer, "fit"):
        model.tokenizer.fit(scenes(8, seed=0, size=16), seed=0)
    return model


@pytest.mark.parametrize(
    ("name", "options"),
    [("kl-autoencoder", {**KL, "subfolder": "vae"}), ("vq-autoencoder", {"image_size": 16, "subfolder": "vqgan"})],
)
def test_a_saved_model_can_be_moved_without_the_original_weights(weights, scenes, tmp_path, name, options):
    """The folder holds the autoencoder in diffusers layout, the index names it relatively, the rest holds no copy."""
    model = _model(_config(name, {**options, "path": str(weights)}), scenes)
    pipeline = FluidPipeline(model, weights="ema")
    expected = pipeline(["a", "b"], **CALL).images
    pipeline.save_pretrained(tmp_path / "saved")
    state = load_file(tmp_path / "saved" / "model.safetensors")
    assert not [one for one in state if one.startswith("tokenizer.autoencoder")]
    index = json.loads((tmp_path / "saved" / "model_index.json").read_text())
    assert index["config"]["tokenizer"]["options"]["path"] == "tokenizer"
    assert "subfolder" not in index["config"]["tokenizer"]["options"]
    assert str(tmp_path) not in (tmp_path / "saved" / "model_index.json").read_text()
    stored = {path.name for path in (tmp_path / "saved" / "tokenizer").iterdir()}
    assert {"config.json", "diffusion_pytorch_model.safetensors"} <= stored
    assert ("latent_statistics.json" in stored) == (name == "kl-autoencoder")
    shutil.rmtree(weights)
    shutil.move(tmp_path / "saved", tmp_path / "moved")
    loaded = FluidPipeline.from_pretrained(tmp_path / "moved")
    assert loaded.model.tokenizer.identity() == model.tokenizer.identity()
    assert torch.equal(loaded(["a", "b"], **CALL).images, expected)
    # Over itself, and from a relative path.
    loaded.save_pretrained(tmp_path / "moved")
    again = FluidPipeline.from_pretrained(tmp_path / "moved")
    assert torch.equal(again(["a", "b"], **CALL).images, expected)


def test_a_cast_model_is_saved_and_loaded(weights, scenes, tmp_path):
    """Weights saved in bfloat16 and read as float32 are the same autoencoder: its statistics still belong to it."""
    model = _model(_config("kl-autoencoder", {**KL, "path": str(weights / "vae")}), scenes)
    mean = model.tokenizer.statistics.mean.clone()
    FluidPipeline(model.to(torch.bfloat16)).save_pretrained(tmp_path / "saved")
    loaded = FluidPipeline.from_pretrained(tmp_path / "saved").model.tokenizer
    assert loaded.fitted
    assert torch.equal(loaded.statistics.mean, mean)


def test_named_statistics_travel_with_the_model(weights, scenes, tmp_path):
    """A file named by the option is written into the saved folder, and the option is gone."""
    first = _model(_config("kl-autoencoder", {**KL, "path": str(weights / "vae")}), scenes)
    first.tokenizer.save_statistics(tmp_path / "mine.json")
    options = {**KL, "path": str(weights / "vae"), "statistics": str(tmp_path / "mine.json")}
    model = FluidModel.from_config(_config("kl-autoencoder", options))
    FluidPipeline(model).save_pretrained(tmp_path / "saved")
    (tmp_path / "mine.json").unlink()
    loaded = FluidPipeline.from_pretrained(tmp_path / "saved").model
    assert loaded.config.tokenizer.options.keys() == {"path", "image_size", "patch_size"}
    assert torch.equal(loaded.tokenizer.statistics.mean, first.tokenizer.statistics.mean)


def test_new_weights_of_an_architecture_are_saved_with_the_model(scenes, tmp_path):
    """An autoencoder that came from no folder has its weights in model.safetensors, and loads from there."""
    architecture = {
        "class": "AutoencoderKL",
        "block_out_channels": [4, 4],
        "norm_num_groups": 2,
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
    }
    model = _model(_config("kl-autoencoder", {**KL, "architecture": architecture}), scenes)
    FluidPipeline(model).save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "tokenizer").exists()
    loaded = FluidPipeline.from_pretrained(tmp_path / "saved").model
    assert loaded.tokenizer.identity() == model.tokenizer.identity()
    assert loaded.tokenizer.fitted


def test_a_folder_without_its_tokenizer_is_refused(weights, scenes, tmp_path):
    """Copied in part: the message says which folder is missing."""
    model = _model(_config("kl-autoencoder", {**KL, "path": str(weights / "vae")}), scenes)
    FluidPipeline(model).save_pretrained(tmp_path / "saved")
    shutil.rmtree(tmp_path / "saved" / "tokenizer")
    with pytest.raises(CheckpointError, match=r"tokenizer of the saved model in .*Copy the model's folder"):
        FluidPipeline.from_pretrained(tmp_path / "saved")


def test_a_foreign_folder_named_tokenizer_is_not_deleted(weights, scenes, tmp_path):
    """Only a folder that holds a saved model may be replaced with what is in it."""
    model = _model(_config("kl-autoencoder", {**KL, "path": str(weights / "vae")}), scenes)
    (tmp_path / "project" / "tokenizer").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="holds 'tokenizer', which saving would delete"):
        FluidPipeline(model).save_pretrained(tmp_path / "project")


@pytest.fixture
def run(weights):
    """A function that makes the configuration of a run of some steps on the KL autoencoder, or on the VQGAN."""

    def make(num_steps, name="kl-autoencoder"):
        folder = {"kl-autoencoder": "vae", "vq-autoencoder": "vqgan"}[name]
        options = KL if name == "kl-autoencoder" else {"image_size": 16}
        return _config(
            name,
            {**options, "path": str(weights / folder)},
            data=ComponentChoice(name="shapes", options={"num_examples": 20, "num_validation_examples": 4}),
            training=TrainingConfig(
                num_steps=num_steps,
                batch_size=4,
                warmup_steps=1,
                checkpoint_every=2,
                sample_every=0,
                num_validation_images=0,
                num_fit_images=8,
                device="cpu",
            ),
        )

    return make


def test_a_resumed_run_equals_one_without_interruption(run, tmp_path):
    """Statistics are measured once and come from the checkpoint on resume, which holds no copy of the autoencoder."""
    Trainer(run(2), tmp_path / "broken").train()
    checkpoint = load_file(tmp_path / "broken" / "checkpoints" / "step-00000002" / "model.safetensors")
    assert not [name for name in checkpoint if name.startswith("tokenizer.autoencoder")]
    assert bool(checkpoint["tokenizer.statistics.measured_marker"])
    resumed = Trainer(run(4), tmp_path / "broken", resume=True)
    resumed.train()
    whole = Trainer(run(4), tmp_path / "whole")
    whole.train()
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name
    for saved in ("model", "model-raw"):
        assert (tmp_path / "whole" / saved / "tokenizer" / "latent_statistics.json").is_file()


@pytest.mark.parametrize("name", ["kl-autoencoder", "vq-autoencoder"])
def test_a_run_is_not_resumed_with_another_autoencoder(run, weights, tiny_autoencoders, tmp_path, name):
    """Other weights in the same folder are refused, both sides named; with a copy of the former ones it goes on."""
    folder = weights / ("vae" if name == "kl-autoencoder" else "vqgan")
    first = Trainer(run(2, name), tmp_path / "run")
    first.train()
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000002"
    identity = first.model.tokenizer.identity()
    assert json.loads((checkpoint / "state.json").read_text())["identities"] == {"tokenizer": identity}
    shutil.copytree(folder, tmp_path / "former")
    shutil.rmtree(folder)
    other = tiny_autoencoders.kl() if name == "kl-autoencoder" else tiny_autoencoders.vq()
    with torch.no_grad():
        next(other.parameters()).mul_(1.001)
    other.save_pretrained(folder)
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(CheckpointMismatchError) as raised:
        Trainer(run(4, name), tmp_path / "run", resume=True)
    message = str(raised.value)
    assert "step-00000002 belongs to a run with another tokenizer than the one in its place now" in message
    assert identity[:12] in message
    assert "Put the former ones back" in message
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == before
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "former", folder)
    assert Trainer(run(4, name), tmp_path / "run", resume=True).train().num_steps == 4
