"""`latent_statistics.json`: found beside the weights or by name, and refused for other tokens."""

import json

import pytest
import torch

from fluid_core.errors import CheckpointError, CheckpointMismatchError, InvalidRequestError
from fluid_core.exchange import MeasuredChannels
from fluid_tokenizers import KLAutoencoder, KLAutoencoderOptions


@pytest.fixture
def folder(tiny_autoencoders, tmp_path):
    """A folder with a tiny AutoencoderKL."""
    tiny_autoencoders.kl().save_pretrained(tmp_path / "vae")
    return tmp_path / "vae"


def _build(folder, **options):
    return KLAutoencoder(KLAutoencoderOptions(**{"path": str(folder), "image_size": 16, **options}))


@pytest.fixture
def fitted(folder, scenes):
    """A tokenizer with statistics of 8 pictures."""
    tokenizer = _build(folder)
    tokenizer.fit(scenes(8, seed=0, size=16), seed=0)
    return tokenizer


def test_statistics_beside_the_weights_are_loaded_exactly(folder, fitted):
    """They are found without being named, make the tokenizer fitted, and survive JSON to the last bit."""
    fitted.save_statistics(folder / "latent_statistics.json")
    loaded = _build(folder)
    assert loaded.fitted
    assert torch.equal(loaded.statistics.mean, fitted.statistics.mean)
    assert torch.equal(loaded.statistics.std, fitted.statistics.std)
    assert not _build(folder, latents="scaled").statistics.measured
    written = json.loads((folder / "latent_statistics.json").read_text())
    assert written["tokenizer_identity"] == fitted.identity()
    assert written["num_vectors"] == 8 * 64
    assert (written["num_images"], written["patch_size"], written["image_size"]) == (8, 1, 16)
    assert written["source"] == "8 images of the training data"


def test_floored_deviations_survive_saving(folder):
    """A channel that hardly varies gets the floor once, not again at every loading."""
    tokenizer = _build(folder)
    tokenizer.adopt_statistics(
        MeasuredChannels(
            mean=torch.zeros(4), std=torch.tensor([1e-9, 1.0, 2.0, 1e-3]), num_vectors=5, num_images=1, source="a test"
        )
    )
    assert float(tokenizer.statistics.std[0]) > 0.01
    tokenizer.save_statistics(folder / "latent_statistics.json")
    assert torch.equal(_build(folder).statistics.std, tokenizer.statistics.std)


def test_the_option_names_a_file_elsewhere(folder, fitted, tmp_path):
    """It is used instead of the one beside the weights; a missing one is an error, not a silent default."""
    other = tmp_path / "elsewhere" / "mine.json"
    fitted.save_statistics(other)
    loaded = _build(folder, statistics=str(other))
    assert loaded.statistics_file == other
    assert torch.equal(loaded.statistics.mean, fitted.statistics.mean)
    with pytest.raises(CheckpointError, match=r"in the file '.*none\.json', found no such file\. Measure them"):
        _build(folder, statistics=str(tmp_path / "none.json"))


def test_statistics_of_other_tokens_are_refused(folder, fitted, tiny_autoencoders, tmp_path):
    """Another grouping, another autoencoder, and another number of channels, with both sides and the way out."""
    file = tmp_path / "statistics.json"
    fitted.save_statistics(file)
    with pytest.raises(
        CheckpointMismatchError, match=r"of patch size 2, found those of patch size 1 .*8 images of the"
    ):
        _build(folder, statistics=str(file), patch_size=2)
    tiny_autoencoders.kl(scaling_factor=0.2).save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointMismatchError) as caught:
        _build(tmp_path / "other", statistics=str(file))
    assert fitted.identity()[:12] in str(caught.value)
    assert _build(tmp_path / "other").identity()[:12] in str(caught.value)
    assert "tokenizer.options.latents=scaled" in str(caught.value)
    tiny_autoencoders.kl(latent_channels=8).save_pretrained(tmp_path / "wide")
    with pytest.raises(CheckpointMismatchError, match="of 8 channels, found those of 4 channels"):
        _build(tmp_path / "wide", statistics=str(file))
    # The way out: built without statistics, it can be measured.
    assert _build(tmp_path / "wide", statistics=str(file), latents="scaled").fitted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(format_version=9), "found format 9"),
        (lambda data: data.pop("format_version"), "found something else"),
        (lambda data: data.pop("mean"), "are damaged"),
        (lambda data: data["std"].__setitem__(0, 0.0), "above zero"),
        (lambda data: data.update(std=[1.0]), "one number for each channel"),
        (lambda data: data.update(mean="0, 1"), "a list of numbers is missing"),
        (lambda data: data.update(surprise=1), "are damaged"),
    ],
)
def test_damaged_files_are_refused(folder, fitted, change, message):
    """Each is named with what is wrong, and never half used."""
    file = folder / "latent_statistics.json"
    fitted.save_statistics(file)
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match=message) as caught:
        _build(folder)
    assert str(file) in str(caught.value)


def test_nothing_measured_is_not_saved(folder, tmp_path):
    """Statistics that do not exist are refused, and a saved tokenizer has no file of them."""
    tokenizer = _build(folder)
    with pytest.raises(InvalidRequestError, match="found none"):
        tokenizer.save_statistics(tmp_path / "s.json")
    tokenizer.save_pretrained(tmp_path / "copy")
    assert not (tmp_path / "copy" / "latent_statistics.json").exists()
    with pytest.raises(CheckpointMismatchError, match="statistics of 4 token channels, found 3"):
        tokenizer.adopt_statistics(
            MeasuredChannels(mean=torch.zeros(3), std=torch.ones(3), num_vectors=1, num_images=1, source="a test")
        )


def test_a_saved_tokenizer_is_a_diffusers_folder(fitted, tmp_path):
    """Read by diffusers, and by our tokenizer with its statistics."""
    import diffusers

    fitted.save_pretrained(tmp_path / "copy")
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
        "latent_statistics.json",
    }
    theirs = diffusers.AutoencoderKL.from_pretrained(tmp_path / "copy")
    assert torch.equal(theirs.quant_conv.weight, fitted.autoencoder.quant_conv.weight)
    copy = _build(tmp_path / "copy")
    assert copy.identity() == fitted.identity()
    assert torch.equal(copy.statistics.std, fitted.statistics.std)


def test_statistics_of_loaded_weights_have_no_origin(folder, fitted, tmp_path):
    """Statistics that came with a state dict are saved as they are, and said to be of unknown origin."""
    other = _build(folder)
    other.load_state_dict(fitted.state_dict())
    other.save_statistics(tmp_path / "s.json")
    written = json.loads((tmp_path / "s.json").read_text())
    assert (written["source"], written["num_vectors"]) == ("unknown", None)
    assert torch.equal(torch.tensor(written["mean"]), fitted.statistics.mean)
