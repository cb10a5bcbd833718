"""Training tokenizers: what a run leaves, that it improves, resumes bit-equal, and refuses what it can not do."""

import json
import shutil
from pathlib import Path

import attrs
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from typer.testing import CliRunner

from fluid_core.catalog import installed_components
from fluid_core.commands.program import app
from fluid_core.components import FeatureNetworkComponent
from fluid_core.configuration import (
    ComponentChoice,
    PerceptualTerm,
    TokenizerRunConfig,
    TokenizerTrainingConfig,
    load_tokenizer_run,
    structure,
    unstructure,
)
from fluid_core.errors import (
    CheckpointError,
    CheckpointMismatchError,
    ConfigurationError,
    FluidError,
    NonFiniteLossError,
    UnknownComponentError,
)
from fluid_core.keyed_random import KeyedRandom
from fluid_core.training.processes import Processes
from fluid_core.training.sight.metrics import read_metrics
from fluid_core.training.tokenizers.perceptual import perceptual_distance
from fluid_core.training.tokenizers.reconstructions import mean_psnr
from fluid_core.training.tokenizers.trainer import TokenizerTrainer

SIZE = 16
ARCHITECTURE = {
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "block_out_channels": [4, 8],
    "layers_per_block": 1,
    "norm_num_groups": 2,
    "latent_channels": 4,
    "mid_block_add_attention": False,
}
KL = {"class": "AutoencoderKL", **ARCHITECTURE}
VQ = {"class": "VQModel", "num_vq_embeddings": 16, **ARCHITECTURE}
CLOCK = ("images_per_second", "seconds")


def run_config(kind="kl", *, options=None, **training):
    """The configuration of a short run with everything random in it."""
    chosen = {
        "kl": {"architecture": KL, "training": {"kl_weight": 1e-4}},
        "vq": {"architecture": VQ, "training": {"window_steps": 3, "codebook": "average"}},
    }[kind]
    settings = {
        "num_steps": 8,
        "batch_size": 4,
        "learning_rate": 3e-3,
        "schedule": "cosine",
        "warmup_steps": 2,
        "log_every": 1,
        "checkpoint_every": 4,
        "sample_every": 4,
        "num_validation_images": 10,
        "num_fit_images": 12,
        "device": "cpu",
        **training,
    }
    return TokenizerRunConfig(
        tokenizer=ComponentChoice(
            name=f"{kind}-autoencoder", options={"image_size": SIZE, **chosen, **(options or {})}
        ),
        data=ComponentChoice(name="shapes", options={"num_examples": 30, "num_validation_examples": 10}),
        training=TokenizerTrainingConfig(**settings),
    )


@pytest.fixture(scope="session")
def make_tokenizer_trainer(quiet_progress):
    """A function that makes a trainer whose progress goes to `trainer.progress.output`."""

    def make(config, folder, *, stop_after=None, **others):
        return TokenizerTrainer(config, folder, progress=quiet_progress(stop_after), **others)

    return make


def rows_without_clock(folder):
    """The metrics of a run but for what a clock measured."""
    return [{k: v for k, v in row.items() if k not in CLOCK} for row in read_metrics(folder / "metrics.jsonl")]


@pytest.fixture(scope="module")
def finished(make_tokenizer_trainer, tmp_path_factory):
    """A run of 120 steps of a KL autoencoder, and what it returned."""
    folder = tmp_path_factory.mktemp("tokenizer") / "run"
    config = run_config(num_steps=120, checkpoint_every=20, sample_every=120, log_every=20, ema_decay=0.9)
    trainer = make_tokenizer_trainer(config, folder)
    return trainer, trainer.train()


def test_a_run_improves_and_leaves_its_files(finished):
    """PSNR on held-out images rises by decibels; every file that the trainer promises is there."""
    trainer, result = finished
    rows = read_metrics(trainer.folder / "metrics.jsonl")
    quality = [row["validation_psnr"] for row in rows if "validation_psnr" in row]
    assert len(quality) == 6
    assert quality[-1] > quality[0] + 2.0
    assert result.validation == {"psnr": quality[-1]}
    assert result.num_steps == 120
    steps = [row for row in rows if "loss" in row]
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert {"l1", "kl", "gradient_norm", "learning_rate", "num_skipped_images"} <= steps[0].keys()
    expected = steps[0]["l1"] + 1e-4 * steps[0]["kl"]
    assert steps[0]["loss"] == pytest.approx(expected, rel=1e-5)
    assert json.loads((trainer.folder / "config.json").read_text())["config"] == unstructure(trainer.config)
    sheet = Image.open(trainer.folder / "reconstructions" / "step-00000120.png")
    assert sheet.width > 8 * 100
    assert [path.name for path in sorted((trainer.folder / "checkpoints").iterdir())] == [
        "step-00000100",
        "step-00000120",
    ]
    assert "validation PSNR" in trainer.progress.output.getvalue()


def test_the_result_is_a_tokenizer_for_a_model(finished):
    """Built from the folder it has the averaged weights, and tokens of the training images are normalised."""
    trainer, result = finished
    assert result.tokenizer_folder == trainer.folder / "tokenizer"
    options = {"image_size": SIZE, "path": str(result.tokenizer_folder)}
    built = installed_components().build("tokenizer", "kl-autoencoder", options)
    assert built.fitted
    weights = dict(built.named_parameters())
    assert weights.keys() == trainer.average.weights.keys()
    for name, average in trainer.average.weights.items():
        torch.testing.assert_close(weights[name], average, rtol=0, atol=0)
    trained = dict(trainer.tokenizer.named_parameters())
    assert any(not torch.equal(trained[name], average) for name, average in trainer.average.weights.items())
    images = torch.stack([trainer.train_data[index].image for index in range(30)])
    random = KeyedRandom(torch.arange(30))
    tokens = built.tokens(built.precompute(images), random=random).flatten(0, 1)
    assert tokens.mean(dim=0).abs().max() < 0.3
    assert (tokens.std(dim=0) - 1).abs().max() < 0.3


def test_codebook_use_is_logged_and_codes_are_revived(make_tokenizer_trainer, tmp_path):
    """Fresh codes lie together, so that most are dead: after windows they are revived, counted, and more are used."""
    trainer = make_tokenizer_trainer(run_config("vq", num_steps=12, sample_every=0), tmp_path / "run")
    result = trainer.train()
    rows = [row for row in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in row]
    assert rows[0]["codes_used"] < 0.5
    assert [row["codes_revived"] for row in rows[:3]] == [0, 0, rows[2]["codes_revived"]]
    assert rows[2]["codes_revived"] > 0
    assert rows[-1]["codes_used"] > rows[0]["codes_used"]
    assert 1.0 <= rows[-1]["codebook_perplexity"] <= 16.0
    options = {"image_size": SIZE, "path": str(result.tokenizer_folder)}
    built = installed_components().build("tokenizer", "vq-autoencoder", options)
    torch.testing.assert_close(built.codebook, trainer.average.weights["autoencoder.quantize.embedding.weight"])


@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_a_killed_run_continues_bit_equal(make_tokenizer_trainer, tmp_path, kind):
    """Stopped after step 6, inside a window of the codebook, it goes on from step 4 to the same end in every file."""
    config = run_config(kind)
    whole = make_tokenizer_trainer(config, tmp_path / "whole")
    whole.train()
    with pytest.raises(KeyboardInterrupt):
        make_tokenizer_trainer(config, tmp_path / "killed", stop_after=6).train()
    resumed = make_tokenizer_trainer(config, tmp_path / "killed", resume=True)
    assert resumed.step == 4
    assert resumed.train().num_steps == 8
    assert rows_without_clock(tmp_path / "whole") == rows_without_clock(tmp_path / "killed")
    files = sorted(path.relative_to(whole.folder) for path in whole.folder.rglob("*") if path.is_file())
    assert Path("tokenizer/diffusion_pytorch_model.safetensors") in files
    assert Path("checkpoints/step-00000008/optimizer.safetensors") in files
    for file in files:
        # These two hold what a clock measured.
        if file.name not in ("metrics.jsonl", "state.json"):
            assert (whole.folder / file).read_bytes() == (resumed.folder / file).read_bytes(), file


def test_checkpoints_hold_what_upkeep_remembers(make_tokenizer_trainer, tmp_path):
    """Counts of the open window come back, though the saved tokenizer has none of them."""
    config = run_config("vq", num_steps=4)
    first = make_tokenizer_trainer(config, tmp_path / "run")
    first.train()
    again = make_tokenizer_trainer(config, tmp_path / "run", resume=True)
    before, after = dict(first.tokenizer.named_buffers()), dict(again.tokenizer.named_buffers())
    assert float(before["upkeep.counts"].sum()) == 4 * 64
    for name, buffer in before.items():
        assert torch.equal(buffer, after[name]), name


def test_looking_changes_nothing(make_tokenizer_trainer, tmp_path):
    """Measuring, drawing sheets and saving take nothing from the randomness of training."""
    often = make_tokenizer_trainer(run_config("vq", sample_every=1, checkpoint_every=2), tmp_path / "often")
    rarely = make_tokenizer_trainer(
        run_config("vq", sample_every=0, checkpoint_every=8, num_validation_images=0), tmp_path / "rarely"
    )
    often.train()
    assert rarely.train().validation == {}
    for (name, one), other in zip(often.tokenizer.named_parameters(), rarely.tokenizer.parameters(), strict=True):
        assert torch.equal(one, other), name
    assert not (tmp_path / "rarely" / "reconstructions").exists()


def test_a_time_limit_ends_a_run(make_tokenizer_trainer, tmp_path):
    """A run of many steps stops with its minutes, and leaves a tokenizer."""
    config = run_config(num_steps=100_000, max_minutes=0.01, num_validation_images=0, sample_every=0)
    result = make_tokenizer_trainer(config, tmp_path / "run").train()
    assert 0 < result.num_steps < 100_000
    assert 0.6 <= result.seconds < 60
    assert (tmp_path / "run" / "tokenizer" / "config.json").is_file()


def test_training_goes_on_from_a_trained_tokenizer(finished, make_tokenizer_trainer, tmp_path):
    """A configuration with `path` in place of an architecture starts at the weights of that folder."""
    _, result = finished
    config = run_config(num_steps=1, num_validation_images=0, sample_every=0)
    tokenizer = attrs.evolve(config.tokenizer, options={"image_size": SIZE, "path": str(result.tokenizer_folder)})
    trainer = make_tokenizer_trainer(attrs.evolve(config, tokenizer=tokenizer), tmp_path / "run")
    assert trainer.train().num_steps == 1
    first = read_metrics(tmp_path / "run" / "metrics.jsonl")[0]
    fresh = read_metrics(finished[0].folder / "metrics.jsonl")[0]
    assert first["l1"] < 0.7 * fresh["l1"]


@attrs.frozen(kw_only=True)
class FixedOptions:
    """Options of a network, of which the test reads one."""

    depth: int = 1


class FixedNetwork(nn.Module):
    """Two layers of a random convolution."""

    name = "random convolutions"
    width = 6

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.first, self.second = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 6, 3, stride=2)

    def features(self, images):
        """Means of the second layer."""
        return self.maps(images)[1].mean(dim=(2, 3))

    def maps(self, images):
        """Both layers."""
        fine = self.first(images).relu()
        return fine, self.second(fine)


def test_perceptual_distance_follows_its_formula():
    """The mean over layers of the squared distance of unit vectors; 0 for equal pictures, 4 for opposite maps."""
    network = FixedNetwork()
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.rand(2, 3, 12, 12, generator=generator) * 2 - 1 for _ in range(2))
    one.requires_grad_(True)
    found = perceptual_distance(network, one, other)
    layers = []
    for a, b in zip(network.maps(one), network.maps(other), strict=True):
        cosine = torch.nn.functional.cosine_similarity(a, b, dim=1)
        # Vectors that relu left at zero have no direction: their distance is the length of the other, 0 or 1.
        zero_a, zero_b = a.square().sum(dim=1) == 0, b.square().sum(dim=1) == 0
        squared = torch.where(zero_a | zero_b, (zero_a != zero_b).float(), 2 - 2 * cosine)
        layers.append(squared.mean())
    torch.testing.assert_close(found, (layers[0] + layers[1]) / 2)
    found.backward()
    assert float(one.grad.abs().sum()) > 0
    assert perceptual_distance(network, other, other) == 0

    class Opposite(FixedNetwork):
        def maps(self, images):
            return (images,)

    assert float(perceptual_distance(Opposite(), other, -other)) == pytest.approx(4.0, rel=1e-5)


def test_a_perceptual_term_joins_the_loss(make_tokenizer_trainer, tmp_path):
    """The network of the configuration is built by name, weighted into the loss, logged, and not trained."""
    built = []

    def build(options):
        assert options.depth == 2
        built.append(FixedNetwork())
        return built[-1]

    component = FeatureNetworkComponent(name="fixed", summary="For this test", options=FixedOptions, build=build)
    catalog = installed_components().with_components(component)
    term = PerceptualTerm(network="fixed", weight=0.25, options={"depth": 2})
    config = run_config(num_steps=2, num_validation_images=0, sample_every=0, perceptual=term)
    make_tokenizer_trainer(config, tmp_path / "run", catalog=catalog).train()
    for row in read_metrics(tmp_path / "run" / "metrics.jsonl"):
        expected = row["l1"] + 1e-4 * row["kl"] + 0.25 * row["perceptual"]
        assert row["loss"] == pytest.approx(expected, rel=1e-5)
        assert row["perceptual"] > 0
    (network,), fresh = built, FixedNetwork()
    for parameter, unchanged in zip(network.parameters(), fresh.parameters(), strict=True):
        assert torch.equal(parameter, unchanged)
        assert parameter.grad is None


def test_psnr_is_the_mean_over_images():
    """An error of 0.2 everywhere is 20 dB, one of 0.02 is 40 dB; equal images count 100 dB."""
    wanted = torch.zeros(2, 3, 4, 4)
    found = torch.tensor([0.2, 0.02])[:, None, None, None].expand(2, 3, 4, 4)
    assert mean_psnr(found, wanted) == pytest.approx(30.0, abs=1e-4)
    assert mean_psnr(wanted, wanted) == 100.0


def test_a_loss_that_is_not_finite_stops_the_run(make_tokenizer_trainer, tmp_path):
    """The message names step, part and weights; no weight is touched and no checkpoint written."""
    trainer = make_tokenizer_trainer(run_config(), tmp_path / "run")
    with torch.no_grad():
        trainer.tokenizer.autoencoder.decoder.conv_out.bias.fill_(float("nan"))
    before = trainer.tokenizer.autoencoder.encoder.conv_in.weight.clone()
    with pytest.raises(NonFiniteLossError, match=r"Step 1: part l1 of the loss is nan.*conv_out\.bias are already"):
        trainer.train()
    assert torch.equal(trainer.tokenizer.autoencoder.encoder.conv_in.weight, before)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (ComponentChoice(name="pixel-patches"), "Expected a tokenizer with weights to train.*found 'pixel-patches'"),
        (
            ComponentChoice(
                name="kl-autoencoder", options={"image_size": SIZE, "architecture": KL, "dtype": "bfloat16"}
            ),
            "weights in float32 to train, found bfloat16",
        ),
        (
            ComponentChoice(
                name="kl-autoencoder",
                options={"image_size": SIZE, "architecture": KL, "training": {"commitment_weight": 1.0}},
            ),
            r"unknown key 'commitment_weight'.* @ \$\.tokenizer\.options\.training",
        ),
    ],
)
def test_tokenizers_that_can_not_be_trained_are_refused(make_tokenizer_trainer, tmp_path, tokenizer, message):
    """In one sentence, and without claiming the folder."""
    with pytest.raises(ConfigurationError, match=message):
        make_tokenizer_trainer(attrs.evolve(run_config(), tokenizer=tokenizer), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_drop_probability": 0.1}, r"unknown key 'text_drop_probability'.* @ \$\.training"),
        ({"perceptual": {"weight": 0.1}}, r"this key is missing.* @ \$\.training\.perceptual\.network"),
        ({"perceptual": {"network": "x", "weight": 0.0}}, r"weight.* @ \$\.training\.perceptual"),
        ({"num_steps": "7"}, r"expected an integer, found the text '7' @ \$\.training\.num_steps"),
    ],
)
def test_wrong_values_of_the_training_section_are_refused(change, message):
    """Each with its place in the file."""
    data = unstructure(run_config())
    data["training"] |= change
    with pytest.raises(ConfigurationError, match=message):
        structure(data, TokenizerRunConfig)


def test_a_network_that_is_not_installed_is_refused(make_tokenizer_trainer, tmp_path):
    """Its name is in the message."""
    config = run_config(perceptual=PerceptualTerm(network="no-such-network"))
    with pytest.raises(UnknownComponentError, match="no-such-network"):
        make_tokenizer_trainer(config, tmp_path / "run")


def test_another_tokenizer_is_refused_on_resume(make_tokenizer_trainer, tmp_path):
    """A folder with a run is refused without resume, and with it for other weights of the loss."""
    make_tokenizer_trainer(run_config(num_steps=1, num_validation_images=0), tmp_path / "run").train()
    with pytest.raises(CheckpointError, match="already holds a run"):
        make_tokenizer_trainer(run_config(), tmp_path / "run")
    other = run_config(options={"training": {"kl_weight": 1.0}})
    with pytest.raises(CheckpointMismatchError, match=r"tokenizer\.options\.training\.kl_weight: 0\.0001 -> 1\.0"):
        make_tokenizer_trainer(other, tmp_path / "run", resume=True)


@pytest.mark.parametrize("name", ["tokenizer-kl", "tokenizer-vq"])
def test_the_examples_describe_the_same_autoencoder(name):
    """Encoder and decoder of the two configurations are equal, on an 8 x 8 grid, and small."""
    folder = Path(__file__).parents[3] / "examples" / "configs"
    config = load_tokenizer_run(folder / f"{name}.toml")
    built = installed_components().build("tokenizer", config.tokenizer.name, config.tokenizer.options)
    assert built.image_size == (64, 64)
    assert built.token_space.grid.length == 64
    assert sum(p.numel() for p in built.parameters()) < 380_000
    twin = load_tokenizer_run(folder / ("tokenizer-vq.toml" if name == "tokenizer-kl" else "tokenizer-kl.toml"))
    own, others = (c.tokenizer.options["architecture"] for c in (config, twin))
    for key in ("block_out_channels", "layers_per_block", "norm_num_groups", "latent_channels", "down_block_types"):
        assert own[key] == others[key]
    assert config.training == twin.training


TOML = f"""
[tokenizer]
name = "vq-autoencoder"

[tokenizer.options]
image_size = {SIZE}
training = {{ window_steps = 2 }}

[tokenizer.options.architecture]
class = "VQModel"
down_block_types = ["DownEncoderBlock2D", "DownEncoderBlock2D"]
up_block_types = ["UpDecoderBlock2D", "UpDecoderBlock2D"]
block_out_channels = [4, 8]
layers_per_block = 1
norm_num_groups = 2
latent_channels = 4
num_vq_embeddings = 16

[data]
name = "shapes"
options = {{ num_examples = 20, num_validation_examples = 4 }}

[training]
num_steps = 500
batch_size = 4
device = "cpu"
num_validation_images = 4
"""


def test_the_command_trains_and_resumes(tmp_path):
    """`fluid tokenizer train` reads a file and overrides, writes the folder, and goes on where it was."""
    config = tmp_path / "tiny.toml"
    config.write_text(TOML)
    arguments = ["tokenizer", "train", str(config), "training.num_steps=2", "--out", str(tmp_path / "run")]
    first = CliRunner().invoke(app, arguments)
    assert first.exit_code == 0, first.output
    assert "Trained 2 steps" in first.output
    assert "dB PSNR on held-out images" in first.output
    assert (tmp_path / "run" / "tokenizer" / "diffusion_pytorch_model.safetensors").is_file()
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, FluidError)
    arguments[3] = "training.num_steps=3"
    more = CliRunner().invoke(app, [*arguments, "--resume"])
    assert more.exit_code == 0, more.output
    assert "Trained 3 steps" in more.output


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["kl", "vq"])
def test_two_processes_train_the_tokenizer_of_one(kind, make_tokenizer_trainer, train_in_processes, tmp_path):
    """Weights, codebook and logged figures agree, for a batch that does not divide evenly; then one process goes on."""
    config = run_config(kind, batch_size=5, sample_every=0, num_validation_images=4)
    make_tokenizer_trainer(config, tmp_path / "one").train()
    told = train_in_processes(config, tmp_path / "two", num_processes=2)
    assert told.count("validation PSNR") == 2, "one process alone speaks"
    compare_runs(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(tmp_path / "two" / "checkpoints" / "step-00000008")
    resumed = make_tokenizer_trainer(config, tmp_path / "two", resume=True)
    assert resumed.step == 4
    resumed.train()
    compare_runs(tmp_path / "one", tmp_path / "two")
    if kind == "vq":
        revived = [row["codes_revived"] for row in rows_without_clock(tmp_path / "two") if "codes_revived" in row]
        assert len(revived) == 8
        assert revived[-1] > 0


def compare_runs(one, other):
    """The tokenizers and metrics of two runs agree up to rounding."""
    expected = load_file(one / "tokenizer" / "diffusion_pytorch_model.safetensors")
    found = load_file(other / "tokenizer" / "diffusion_pytorch_model.safetensors")
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=1e-4, rtol=1e-3, msg=name)
    for row, same in zip(rows_without_clock(one), rows_without_clock(other), strict=True):
        assert row == pytest.approx(same, rel=1e-3)


def test_fewer_images_than_processes_are_refused(monkeypatch, make_tokenizer_trainer, tmp_path):
    """Every process needs a row of the batch; nothing is written before that is known."""
    monkeypatch.setattr("fluid_core.training.tokenizers.trainer.Processes.join", lambda: Processes(rank=0, count=5))
    with pytest.raises(ConfigurationError, match="found 4 images for 5 processes"):
        make_tokenizer_trainer(run_config("kl"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
