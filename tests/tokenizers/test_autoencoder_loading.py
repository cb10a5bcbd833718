"""What can be wrong with an autoencoder that is to be loaded, and what the person is told."""

import builtins
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from fluid_core.configuration import structure
from fluid_core.errors import CheckpointError, CheckpointMismatchError, ConfigurationError, PluginError
from fluid_tokenizers import PRESETS, KLAutoencoder, KLAutoencoderOptions, VQAutoencoder, VQAutoencoderOptions


def _load(path, **options):
    return KLAutoencoder(KLAutoencoderOptions(**{"path": str(path), "image_size": 16, **options}))


@pytest.fixture
def saved(tiny_autoencoders, tmp_path):
    """A folder with a tiny AutoencoderKL."""
    tiny_autoencoders.kl().save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def test_a_missing_folder_is_named(tmp_path):
    """Before any hub is asked."""
    with pytest.raises(CheckpointError, match=r"at '.*nowhere', found no such folder\. Pass the folder that holds"):
        _load(tmp_path / "nowhere")


def test_a_hub_that_can_not_be_reached_is_explained(monkeypatch):
    """An id that is no folder is looked for on the hub; offline the message says what to pass."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=r"at 'nobody/nothing', found no readable configuration: .*while online"):
        _load("nobody/nothing")


def test_folders_with_something_else_say_what_they_hold(saved, tmp_path):
    """A whole pipeline, weights in the latent diffusion format, a wrong subfolder, a file, and an empty folder."""
    with pytest.raises(CheckpointError, match=r"whole pipeline\. Set subfolder = \"vae\""):
        _load(tmp_path)
    assert _load(tmp_path, subfolder="vae").token_space.channels == 4
    with pytest.raises(CheckpointError, match=r"there is no folder 'unet' in it\. It holds: vae"):
        _load(tmp_path, subfolder="unet")
    (tmp_path / "ldm").mkdir()
    with pytest.raises(CheckpointError, match="it holds nothing"):
        _load(tmp_path / "ldm")
    (tmp_path / "ldm" / "kl16.ckpt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"holds kl16\.ckpt, which looks like the format of the latent diffusion"):
        _load(tmp_path / "ldm")
    with pytest.raises(CheckpointError, match=r"found the file '.*kl16\.ckpt'"):
        _load(tmp_path / "ldm" / "kl16.ckpt")


def test_another_class_is_named_with_the_tokenizer_it_is_for(saved, tiny_autoencoders, tmp_path):
    """A VQGAN is no KL autoencoder and the other way round; classes for neither are refused without advice."""
    tiny_autoencoders.vq().save_pretrained(tmp_path / "vq")
    with pytest.raises(CheckpointMismatchError, match=r"found 'VQModel'\. Choose the tokenizer 'vq-autoencoder'"):
        _load(tmp_path / "vq")
    with pytest.raises(CheckpointMismatchError, match=r"Expected a diffusers VQModel .*'kl-autoencoder'"):
        VQAutoencoder(VQAutoencoderOptions(path=str(saved), image_size=16))
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, "_class_name": "UNet2DModel"}))
    with pytest.raises(CheckpointMismatchError, match=r"AutoencoderTiny or AutoencoderDC at .* found 'UNet2DModel'"):
        _load(saved)


def test_missing_damaged_and_unfit_weights_are_refused(saved):
    """No file, half a file, a file without a tensor, and one with a tensor of another shape."""
    file = saved / "diffusion_pytorch_model.safetensors"
    whole, state = file.read_bytes(), load_file(file)
    save_file({name: tensor for name, tensor in state.items() if name != "quant_conv.bias"}, file)
    with pytest.raises(CheckpointError, match=r"1 missing or of another shape, such as quant_conv\.bias"):
        _load(saved)
    save_file({**state, "quant_conv.bias": torch.zeros(3)}, file)
    with pytest.raises(CheckpointError, match=r"that fit its config\.json, found none that can be read: .*quant_conv"):
        _load(saved)
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="found none that can be read"):
        _load(saved)
    file.unlink()
    torch_file = saved / "diffusion_pytorch_model.bin"
    torch_file.write_bytes(b"a pickle")
    with pytest.raises(CheckpointError, match="in safetensors files"):
        _load(saved)


def test_damaged_configuration_is_refused(saved):
    """Half a config.json."""
    (saved / "config.json").write_text('{"_class_name": "Autoenc')
    with pytest.raises(CheckpointError, match="found no readable configuration"):
        _load(saved)


def test_without_diffusers_the_message_says_what_to_install(saved, monkeypatch):
    """The import fails inside building, and is explained."""
    real = builtins.__import__

    def refuse(name, *rest):
        if name == "diffusers":
            raise ImportError("No module named 'diffusers'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(PluginError, match=r"pip install 'diffusers>=0\.35'"):
        _load(saved)


def test_loading_leaves_the_global_generator_alone(saved):
    """Weights read from a file cost no random numbers, whatever diffusers draws before it reads them."""
    before = torch.get_rng_state()
    _load(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_new_weights_come_from_an_architecture():
    """A table of a configuration: the class and its arguments; the global generator gives the weights."""
    table = {
        "image_size": 16,
        "architecture": {"class": "AutoencoderKL", "block_out_channels": [4, 4], "norm_num_groups": 2}
        | {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2},
    }
    options = structure(table, KLAutoencoderOptions)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        first = KLAutoencoder(options)
        torch.manual_seed(3)
        second = KLAutoencoder(options)
        third = KLAutoencoder(options)
    assert first.identity() == second.identity() != third.identity()
    assert first.stored_modules == ()
    assert first.statistics_file is None


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"block_out_channels": [4]}, "to name a diffusers class"),
        ({"class": "VQModel"}, "AutoencoderTiny or AutoencoderDC, found 'VQModel'. Choose the tokenizer 'vq"),
        ({"class": "AutoencoderKL", "latent_chanels": 4}, r"found 'latent_chanels'. Did you mean 'latent_channels'"),
        ({"class": "AutoencoderKL", "block_out_channels": [4]}, "diffusers can not build this AutoencoderKL"),
    ],
)
def test_wrong_architectures_are_refused(architecture, message):
    """A class that is missing or of another tokenizer, arguments it does not know, and values it can not build."""
    with pytest.raises(ConfigurationError, match=message):
        KLAutoencoder(KLAutoencoderOptions(image_size=16, architecture=architecture))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "found neither"),
        ({"path": "x", "architecture": {"class": "AutoencoderKL"}}, "found both"),
        ({"subfolder": "vae", "architecture": {"class": "AutoencoderKL"}}, "but there is no path"),
        ({"preset": "sd-1.4"}, "Expected a preset among sd-1.5, .*Did you mean 'sd-1.5'"),
        ({"preset": "ldm-kl-16"}, "format of the latent diffusion code, which is not a diffusers folder"),
    ],
)
def test_options_that_name_no_weights_or_two_are_refused(options, message):
    """Exactly one source of weights; a preset whose weights can not be loaded says how to get them."""
    with pytest.raises(ConfigurationError, match=message):
        KLAutoencoderOptions(**options)


def test_presets_bring_repository_and_grouping():
    """A preset alone names the hub repository; with the weights elsewhere it gives the grouping, unless set."""
    alone = KLAutoencoderOptions(preset="flux.1")
    assert alone.location == ("black-forest-labs/FLUX.1-schnell", "vae")
    assert alone.grouping == 2
    assert KLAutoencoderOptions(preset="ldm-kl-16", path="x").grouping == 1
    assert KLAutoencoderOptions(preset="sd3", path="x", patch_size=4).grouping == 4
    assert KLAutoencoderOptions(path="x").grouping == 1
    constants = {name: (one.latent_channels, one.scaling_factor, one.shift_factor) for name, one in PRESETS.items()}
    assert constants == {
        "sd-1.5": (4, 0.18215, None),
        "sdxl": (4, 0.13025, None),
        "sd3": (16, 1.5305, 0.0609),
        "flux.1": (16, 0.3611, 0.1159),
        "ldm-kl-16": (16, 0.2325, None),
    }


def test_a_preset_refuses_other_constants(tiny_autoencoders, tmp_path):
    """The autoencoder must have the preset's channels, stride, scale and shift; every difference is named."""
    tiny_autoencoders.kl(4, latent_channels=16, scaling_factor=1.5305, shift_factor=0.0609).save_pretrained(tmp_path)
    assert _load(tmp_path, preset="sd3").token_space.channels == 64
    with pytest.raises(CheckpointMismatchError) as caught:
        _load(tmp_path, preset="ldm-kl-16")
    message = str(caught.value)
    assert "pixels along one side of a latent 8 instead of 16" in message
    assert "scaling_factor 1.5305 instead of 0.2325" in message
    assert "shift_factor 0.0609 instead of 0.0" in message
    assert "latent_channels" not in message
    assert "MAR's training code" in message
