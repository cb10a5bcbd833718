"""Parameters of a plan are those of the model that training builds."""

import pytest

from fluid_core import FluidModel
from fluid_core.backbone.sizes import SIZES
from fluid_core.configuration import BackboneConfig, ComponentChoice
from fluid_core.planning.parameter_counts import count_parameters
from fluid_core.planning.skeleton import build_skeleton


def _num(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_each_part_has_the_parameters_of_the_real_model(medium_config, tokens_and_order):
    """Exactly, for all four models of the paper; shared tables count once."""
    config = medium_config(*tokens_and_order)
    counts = count_parameters(build_skeleton(config))
    model = FluidModel.from_config(config)
    assert counts.token_embedding == _num(model.token_embedding)
    assert counts.aligner == _num(model.aligner)
    assert counts.transformer == _num(model.transformer)
    assert counts.head == _num(model.head)
    assert counts.trained_text_encoder == _num(model.text_encoder)
    assert counts.frozen_tokenizer == _num(model.tokenizer)
    assert counts.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("head", ["flow", "gaussian-mixture"])
def test_heads_that_the_plan_does_not_know_are_counted(head, medium_config):
    """Also those of other people's packages."""
    config = medium_config(head=ComponentChoice(name=head))
    assert count_parameters(build_skeleton(config)).head == _num(FluidModel.from_config(config).head)


def test_frozen_parts_are_counted_from_their_configuration(medium_config, example_choice, tmp_path):
    """T5 and an autoencoder, without their weights: those are gone when the plan is made."""
    config = medium_config(
        tokenizer=example_choice("tokenizer", "kl-autoencoder", tmp_path / "vae"),
        text_encoder=example_choice("text-encoder", "t5", tmp_path / "t5"),
        unconditional="empty-prompt",
    )
    model = FluidModel.from_config(config)
    for weights in tmp_path.glob("*/*.safetensors"):
        weights.unlink()
    skeleton = build_skeleton(config)
    counts = count_parameters(skeleton)
    assert counts.frozen_tokenizer == _num(model.tokenizer)
    assert counts.frozen_text_encoder == _num(model.text_encoder)
    assert counts.trained_text_encoder == 0
    assert counts.aligner == _num(model.aligner)
    assert skeleton.tokenizer.token_space == model.tokenizer.token_space
    assert skeleton.max_text_length == model.text_encoder.max_length


@pytest.mark.parametrize("size", ["0.2b", "0.4b", "0.7b", "1.1b", "3.1b", "10.5b"])
def test_named_sizes_have_about_the_parameters_of_the_paper(size, medium_config):
    """With tokens like the paper's: 256 of 16 values, and a six-block diffusion head."""
    config = medium_config(
        tokenizer=ComponentChoice(name="kl-autoencoder", options={"preset": "sd-1.5"}),
        head=ComponentChoice(name="diffusion"),
        backbone=BackboneConfig(size=size),
    )
    counts = count_parameters(build_skeleton(config))
    assert counts.as_named == pytest.approx(float(size[:-1]) * 1e9, rel=0.2)
    assert counts.transformer > 16 * SIZES[size].depth * SIZES[size].width ** 2
