"""Fine-tuning: a run that starts from the weights of another model, and says what of them it could not use."""

import re

import pytest
import torch

from fluid_core import FluidPipeline
from fluid_core.configuration import BackboneConfig, ComponentChoice
from fluid_core.errors import CheckpointError, CheckpointMismatchError
from fluid_core.saved_model import load_model
from fluid_core.training.run.starting_weights import model_folder

FLOW = ComponentChoice(name="gaussian-mixture")


@pytest.fixture(scope="module")
def trained(run_config, make_trainer, tmp_path_factory):
    """The folder of a finished run of a diffusion model; not to be changed."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    make_trainer(run_config("continuous", "random"), folder).train()
    return folder


def told(trainer):
    """What was printed, in one line."""
    return " ".join(trainer.progress.output.getvalue().split())


def test_another_head_on_a_trained_backbone(trained, run_config, make_trainer, tmp_path):
    """Backbone, aligner, text encoder and the tokenizer's statistics are those of the model; the head is fresh, and
    named with its tensors, and so is what nobody used.
    """
    config = run_config(parts={"head": FLOW}, init_from=trained / "model")
    trainer = make_trainer(config, tmp_path / "run")
    saved, _ = load_model(trained / "model")
    fresh = make_trainer(run_config(parts={"head": FLOW}), tmp_path / "fresh").model.state_dict()
    for name, tensor in trainer.model.state_dict().items():
        expected = fresh[name] if name.startswith("head.") else saved.state_dict()[name]
        assert torch.equal(tensor, expected), name
    message = told(trainer)
    assert f"starting from the weights of {trained / 'model'}" in message
    assert "transformer: taken over (" in message
    assert "tokenizer: taken over (" in message
    assert "head: starts anew, nothing of it fits (head.projection.weight, head.projection.bias)" in message
    num_unused = sum(name.startswith("head.") for name in saved.state_dict())
    assert re.search(rf"not used: head\.network\.\S+, \S+, \S+, \S+ and {num_unused - 4} more", message)
    assert "chosen otherwise: head 'gaussian-mixture' instead of 'diffusion'" in message
    assert "fitting the tokenizer" not in message
    name = "transformer.blocks.0.feed_forward.hidden.weight"
    assert torch.equal(trainer.average.weights[name], saved.state_dict()[name])
    trainer.train()
    assert FluidPipeline.from_pretrained(tmp_path / "run" / "model")("a red circle", num_inference_steps=1).images


def test_the_same_model_goes_on_whole(trained, run_config, make_trainer, tmp_path):
    """The folder of the run will do as well as that of its model; nothing is left over, so strict passes."""
    trainer = make_trainer(run_config(init_from=trained, init_strict=True), tmp_path / "run")
    saved, weights = load_model(trained / "model")
    assert weights == "ema"
    assert all(torch.equal(tensor, saved.state_dict()[name]) for name, tensor in trainer.model.state_dict().items())
    assert "anew" not in told(trainer)
    assert "not used" not in told(trainer)


def test_what_has_another_shape_is_named_with_both(trained, run_config, make_trainer, tmp_path):
    """A deeper and taller backbone takes what fits; tables of another size and new blocks start anew."""
    backbone = BackboneConfig(width=32, depth=3, num_heads=2, aligner_depth=1, mlp_ratio=2.0)
    trainer = make_trainer(run_config(parts={"backbone": backbone}, init_from=trained), tmp_path / "run")
    message = told(trainer)
    assert "transformer: " in message
    assert "start anew (transformer.blocks.2.self_attention_norm.weight" in message
    assert "transformer.blocks.0.feed_forward.hidden.weight (128, 32) instead of (64, 32)" in message
    saved, _ = load_model(trained / "model")
    name = "transformer.blocks.1.self_attention.qkv.weight"
    assert torch.equal(trainer.model.state_dict()[name], saved.state_dict()[name])
    with pytest.raises(CheckpointMismatchError, match=r"init_strict(.|\n)*transformer\.blocks\.2"):
        make_trainer(run_config(parts={"backbone": backbone}, init_from=trained, init_strict=True), tmp_path / "strict")
    assert not (tmp_path / "strict" / "config.json").exists()


def test_the_tokenizer_stays_the_one_that_was_asked_for(trained, run_config, make_trainer, tmp_path):
    """With other options it learns from the new data, and the message says that tokens mean something else."""
    tokenizer = ComponentChoice(name="pixel-patches", options={"image_size": 32, "patch_size": 8})
    trainer = make_trainer(run_config(parts={"tokenizer": tokenizer}, init_from=trained), tmp_path / "run")
    message = told(trainer)
    assert "chosen otherwise: tokenizer 'pixel-patches' with another image_size" in message
    assert "fitting the tokenizer" in message
    assert "tokenizer: taken over" not in message
    other = make_trainer(run_config("discrete", "random", init_from=trained), tmp_path / "other")
    assert "tokenizer 'patch-codebook' instead of 'pixel-patches': the tokens of the saved model mean" in told(other)
    assert "token_embedding: " in told(other)


def test_a_resumed_run_goes_on_from_its_own_checkpoint(trained, run_config, make_trainer, tmp_path):
    """The model it started from is not looked at again, not even for whether it is still there."""
    make_trainer(run_config(init_from=trained), tmp_path / "run").train()
    config = run_config(init_from=tmp_path / "gone", num_steps=6)
    resumed = make_trainer(config, tmp_path / "run", resume=True)
    assert resumed.step == 4
    assert "starting from the weights" not in told(resumed)


def test_folders_that_hold_no_model_are_refused(trained, run_config, make_trainer, tmp_path):
    """No folder, a folder with something else, a run that has not ended, and a model of which nothing fits."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "unfinished" / "checkpoints").mkdir(parents=True)
    cases = [
        (tmp_path / "none", CheckpointError, "none is no folder"),
        (tmp_path / "empty", CheckpointError, "empty holds no saved model and no run"),
        (tmp_path / "unfinished", CheckpointError, "a run that has not ended"),
    ]
    for folder, error, message in cases:
        with pytest.raises(error, match=message):
            make_trainer(run_config(init_from=folder), tmp_path / "run")
    assert model_folder(trained) == trained / "model"
    wide = run_config(
        "discrete",
        "random",
        {
            "backbone": BackboneConfig(width=48, depth=1, num_heads=2, aligner_depth=1),
            "text_encoder": ComponentChoice(name="bytes", options={"width": 24}),
        },
        init_from=trained,
    )
    with pytest.raises(CheckpointMismatchError, match="of whose weights not one fits this model"):
        make_trainer(wide, tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
