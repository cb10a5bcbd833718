"""Tokenizers and text encoders whose weights are elsewhere are neither downloaded nor loaded."""

import attrs
import pytest
import torch

from fluid_core.catalog import installed_components
from fluid_core.components import TokenizerComponent
from fluid_core.configuration import ComponentChoice
from fluid_core.errors import CheckpointError, InvalidComponentError
from fluid_core.planning.frozen_parts import text_encoder_outline, tokenizer_outline
from fluid_tokenizers.presets import PRESETS

CATALOG = installed_components()
KNOWN_AUTOENCODERS = {
    "sd-1.5": {"latent_channels": 4},
    "sdxl": {"latent_channels": 4},
    "sd3": {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
    "flux.1": {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False},
}


@pytest.mark.parametrize(("preset", "num_tokens", "channels"), [("sd-1.5", 256, 16), ("flux.1", 256, 64)])
def test_presets_stand_for_autoencoders_that_are_not_here(preset, num_tokens, channels, no_network):
    """Their constants say the tokens; a folder that does not exist is no reason to fail."""
    for options in ({"preset": preset}, {"preset": preset, "path": "somewhere/not/here"}):
        outline = tokenizer_outline(ComponentChoice(name="kl-autoencoder", options=options), CATALOG)
        assert outline.token_space.grid.length == num_tokens
        assert outline.token_space.channels == channels
        assert outline.num_parameters == PRESETS[preset].num_parameters
        assert [tensor.name for tensor in outline.precomputed] == ["log_variance", "mean"]


@pytest.mark.parametrize("preset", sorted(KNOWN_AUTOENCODERS))
def test_parameters_of_presets_are_those_of_their_architecture(preset):
    """Four stages of 128 to 512 channels, two layers each, as their published configurations say."""
    import diffusers

    stages = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
    with torch.device("meta"):
        model = diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, **stages, **KNOWN_AUTOENCODERS[preset]
        )
    assert sum(parameter.numel() for parameter in model.parameters()) == PRESETS[preset].num_parameters


def test_t5_is_known_by_name(no_network):
    """T5-XXL's encoder has 4.76 billion parameters and states of 4096 numbers."""
    choice = ComponentChoice(name="t5", options={"path": "google/t5-v1_1-xxl", "dtype": "bfloat16"})
    outline, encoder = text_encoder_outline(choice, CATALOG)
    assert encoder is None
    assert (outline.width, outline.max_length, outline.bytes_per_parameter) == (4096, 128, 2)
    assert outline.num_parameters == 4_762_310_656


@pytest.mark.parametrize(
    ("kind", "name", "options"),
    [
        ("tokenizer", "kl-autoencoder", {"path": "somebody/an-autoencoder"}),
        ("tokenizer", "vq-autoencoder", {"path": "./not/here"}),
        ("text-encoder", "t5", {"path": "somebody/a-t5"}),
        ("text-encoder", "transformers-encoder", {"path": "/not/here"}),
    ],
)
def test_what_nobody_knows_is_asked_for(kind, name, options, no_network):
    """The message names what is missing and what to give instead; nothing is downloaded."""
    choice = ComponentChoice(name=name, options=options)
    outline = tokenizer_outline if kind == "tokenizer" else text_encoder_outline
    with pytest.raises(CheckpointError, match="a plan downloads nothing") as raised:
        outline(choice, CATALOG)
    assert options["path"] in str(raised.value)
    assert "local folder that holds config.json" in str(raised.value)


def test_an_outline_of_a_wrong_type_is_attributed_to_its_component():
    """It names the component and what came instead."""

    @attrs.frozen(kw_only=True)
    class Options:
        """None."""

    component = TokenizerComponent(
        name="odd", summary="Odd", options=Options, build=Options, produces="continuous", outline=lambda _: 3
    )
    catalog = CATALOG.with_components(component)
    with pytest.raises(InvalidComponentError, match=r"odd.*TokenizerOutline.*int"):
        tokenizer_outline(ComponentChoice(name="odd"), catalog)
    broken = attrs.evolve(component, outline=3)
    assert any("outline must be a function or None" in problem for problem in broken.problems())
