"""`fluid plan`: what it prints and writes, and how it refuses."""

import json
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from fluid_core.commands.program import app
from fluid_core.errors import ConfigurationError

ROOT = Path(__file__).parents[3]
LARGEST = ROOT / "examples" / "configs" / "fluid-10.5b.toml"
SMALL = ROOT / "examples" / "configs" / "shapes.toml"


@pytest.fixture
def planned(tmp_path):
    """A function that runs `fluid plan` and gives what it printed and the JSON that it wrote."""

    def run(*arguments):
        file = tmp_path / "plan.json"
        result = CliRunner().invoke(app, ["plan", *map(str, arguments), "--json", str(file)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout, json.loads(file.read_text())

    return run


@pytest.mark.slow
def test_the_largest_model_of_the_paper_is_planned_in_seconds(planned, no_network):
    """10.5 billion parameters on 256 GPUs, without weights of its encoders and without a network."""
    started = time.process_time()
    printed, data = planned(LARGEST, "--gpus", 256, "--gpu", "h100", "--dataset-images", 700_000_000)
    assert time.process_time() - started < 60
    assert data["parameters"]["as_named"] == pytest.approx(10.5e9, rel=0.01)
    assert data["parameters"]["frozen_text_encoder"] == 4_762_310_656
    assert [row["sharding"] for row in data["memory"]] == ["none", "hybrid", "full"]
    assert [row["fits"] for row in data["memory"]][::2] == [False, True]
    assert data["fits"]
    assert "The configuration (sharding 'full') fits." in printed
    assert "2,048,000,000 images" in printed
    assert "The paper's 10.5B with such tokens: 10.5 B." in printed
    assert "Assuming that the model's own FLOPs reach 40%" in printed
    assert data["cache"]["tokens_float32"] == 700_000_000 * 32_768
    speed = data["throughput"]
    rate = speed["images_per_second"] * data["flops"]["training"]
    assert rate == pytest.approx(256 * data["gpu"]["bfloat16_flops"] * 0.4)
    assert speed["days"] == pytest.approx(2.048e9 / speed["images_per_second"] / 86_400)
    assert "The head computes in float32" in printed


def test_what_does_not_fit_gets_advice(planned):
    """Settings that fit, or the plain word that there are none."""
    # A billion parameters in few blocks, which take less time to plan than many.
    width = (
        "backbone={width=3072, depth=6, num_heads=24, aligner_depth=1}",
        "tokenizer.options={image_size=256, patch_size=16}",
        "training.batch_size=16",
    )
    printed, data = planned(SMALL, *width, "--gpus", 2, "--gpu", "rtx-3090")
    assert not data["fits"]
    assert data["remedy"]["sharding"] == "full"
    assert data["remedy"]["memory"]["total"] < data["usable_memory"]
    assert "(sharding 'none') does NOT fit. It would with training.sharding = \"full\"" in printed
    printed, data = planned(SMALL, "backbone={width=8192, depth=8, num_heads=64, aligner_depth=1}", "--gpu", "l4")
    assert data["remedy"] is None
    assert "take GPUs with more memory, more GPUs, or a smaller model" in printed


def test_a_small_model_fits_and_says_so(planned):
    """On one GPU, with the text encoder that trains with it."""
    printed, data = planned(SMALL, "--gpu", "rtx-3090")
    assert "The configuration (sharding 'none') fits." in printed
    assert data["fits"]
    assert data["remedy"] is None
    assert data["micro_batch"] == 32
    assert data["num_images"] == 6000 * 32
    assert "trains with the model" in printed
    assert data["paper"] is None


def test_options_and_overrides_change_the_plan(planned):
    """GPUs, utilisation, images, length of captions; and whatever the configuration holds."""
    _, one = planned(SMALL, "--text-length", 16)
    _, four = planned(
        SMALL, "training.accumulation_steps=2", "--text-length", 16, "--gpus", 4, "--mfu", 0.2, "--images", 1000
    )
    assert four["micro_batch"] == 4
    assert four["flops"] == one["flops"]
    assert four["num_images"] == 1000
    assert four["cache"]["num_images"] == 1000
    twice = 2 * one["throughput"]["images_per_second"]
    assert four["throughput"]["images_per_second"] == pytest.approx(twice)
    _, single = planned(SMALL, "training.precision=float32")
    assert single["precision"] == "float32"
    assert single["activations"]["weight_casts"] == 0
    assert single["throughput"]["largest_utilisation"] == 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--gpu", "h10"), "found 'h10'. Did you mean 'h100'"),
        (("--gpus", "0"), "--gpus to be 1 or more, found 0"),
        (("--gpus", "64"), "found 32 images for 64"),
        (("--mfu", "1.5"), "at most 1, found 1.5"),
        (("--images", "0"), "--images to be 1 or more"),
        (("--text-length", "900"), "at most 64 tokens"),
    ],
)
def test_requests_that_make_no_sense_are_refused(arguments, message, planned):
    """Each with what was expected and what was found."""
    with pytest.raises(ConfigurationError, match=message):
        planned(SMALL, *arguments)


def test_a_configuration_without_training_is_refused(planned, tmp_path):
    """The message says which keys are missing."""
    text = SMALL.read_text()
    (tmp_path / "model.toml").write_text(text[: text.index("[training]")])
    with pytest.raises(ConfigurationError, match=r"Expected a \[training\] section with num_steps and batch_size"):
        planned(tmp_path / "model.toml")
