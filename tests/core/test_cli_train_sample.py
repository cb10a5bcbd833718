"""`fluid train` and `fluid sample`: what they leave, what they print, and how they fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fluid_core import FluidPipeline
from fluid_core.cli import main
from fluid_core.configuration import config_from_json
from fluid_core.training.processes import Processes
from fluid_core.training.run.stop_signal import StopSignal

CONFIG = """
sample_prompts = ["a red circle"]

[tokenizer]
name = "pixel-patches"
options = { image_size = 24, patch_size = 8 }

[text_encoder]
name = "bytes"
options = { width = 16 }

[order]
name = "random"

[head]
name = "diffusion"
options = { depth = 2, timesteps_per_token = 1, num_sampling_steps = 2 }

[backbone]
size = "debug"

[data]
name = "shapes"
options = { num_examples = 20, num_validation_examples = 4 }

[training]
num_steps = 500
batch_size = 4
device = "cpu"
num_fit_images = 8
num_validation_images = 4
log_every = 1
"""


@pytest.fixture
def config(tmp_path):
    """A configuration file for a tiny model that would train for 500 steps."""
    path = tmp_path / "tiny.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def fluid(monkeypatch, capsys, tmp_path):
    """A function that runs the program in this process, in `tmp_path`: exit code, output and error output."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["fluid", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    return run


@pytest.fixture
def trained(fluid, config, tmp_path):
    """A run of two steps."""
    code, _, err = fluid("train", config, "training.num_steps=2", "--out", tmp_path / "run")
    assert code == 0, err
    return tmp_path / "run"


def pixels(path):
    """What a PNG shows."""
    return np.asarray(Image.open(path))


def test_train_runs_a_configuration_with_overrides(fluid, config, tmp_path):
    """Overrides win over the file, the run goes to runs/ and the file's name, and the last line says where."""
    code, out, err = fluid("train", config, "training.num_steps=2", "head.options.depth=1")
    assert code == 0
    assert "million trained parameters, run in runs/tiny" in err
    assert "step 2/2" in err
    assert out.startswith("Trained 2 steps in ")
    assert out.rstrip().endswith(str(Path("runs/tiny/model")))
    saved = config_from_json((tmp_path / "runs/tiny/config.json").read_text())
    assert saved.training.num_steps == 2
    assert saved.head.options["depth"] == 1
    assert FluidPipeline.from_pretrained(tmp_path / "runs/tiny/model").weights == "ema"
    assert (tmp_path / "runs/tiny/samples/step-00000002.png").is_file()


@pytest.mark.parametrize("is_stopped", [False, True])
def test_processes_part_once_training_is_over(fluid, config, monkeypatch, is_stopped):
    """Whether it ends by itself or by SIGTERM: one that ended while connected could take others down with it."""
    parted = []
    monkeypatch.setattr(Processes, "leave", lambda processes: parted.append(processes.count))
    signal = StopSignal()
    signal.came = is_stopped
    monkeypatch.setattr("fluid_core.training.trainer.StopSignal", lambda: signal)
    code, _, _ = fluid("train", config, "training.num_steps=2")
    assert code == (143 if is_stopped else 0)
    assert parted == [1]


def test_train_resumes_on_request_only(fluid, config, trained):
    """The same folder again is refused with a hint; with --resume the run goes on."""
    code, out, err = fluid("train", config, "training.num_steps=2", "--out", trained)
    assert (code, out) == (1, "")
    assert "already holds a run" in err
    assert "Traceback" not in err
    code, out, _ = fluid("train", config, "training.num_steps=3", "--out", trained, "--resume")
    assert code == 0
    assert out.startswith("Trained 3 steps")


def test_sample_draws_a_file_for_each_image_and_a_sheet(fluid, trained, tmp_path):
    """Pictures in the order of the prompts, with seeds; a run folder stands for its model; a seed repeats them."""
    call = ("--images-per-prompt", 2, "--seed", 3, "--steps", 2, "--guidance", 2.0, "--guidance-schedule", "linear")
    call = (*call, "--head-backend", "reference")
    code, out, err = fluid("sample", trained, "a red circle", "two blue squares", *call)
    assert (code, err) == (0, "")
    names = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert names == ["00000.png", "00001.png", "00002.png", "00003.png", "run.json", "sheet.png"]
    assert pixels(tmp_path / "samples/00000.png").shape == (24, 24, 3)
    lines = out.splitlines()
    assert [line.split("  ")[-1] for line in lines] == ["a red circle"] * 2 + ["two blue squares"] * 2 + [
        "(ema weights, reference sampler of the head)"
    ]
    seeds = [line.split("seed ")[1].split()[0] for line in lines[:4]]
    assert len(set(seeds)) == 4

    code, _, _ = fluid(
        "sample", trained / "model", "a red circle", "two blue squares", *call, "--out", tmp_path / "again"
    )
    assert code == 0
    for name in names:
        if name.endswith(".json"):
            continue
        assert np.array_equal(pixels(tmp_path / "samples" / name), pixels(tmp_path / "again" / name))


def test_sample_options_reach_the_model(fluid, saved_run, tmp_path):
    """Head steps, temperature and guidance change the pictures."""
    base = ("sample", saved_run, "a", "--seed", 1, "--steps", 2)
    fluid(*base, "--out", tmp_path / "base")
    late = ("--guidance", 5.0, "--guidance-schedule", "interval", "--guidance-interval", 0.5, 1.0)
    for index, options in enumerate((("--head-steps", 3), ("--temperature", 0.0), ("--guidance", 5.0), late)):
        code, _, _ = fluid(*base, *options, "--out", tmp_path / str(index))
        assert code == 0
        assert not np.array_equal(pixels(tmp_path / "base/00000.png"), pixels(tmp_path / str(index) / "00000.png"))


def test_backend_and_options_of_the_head_reach_it(fluid, small_model, tmp_path):
    """The last line says what ran; limits on the vocabulary change the pictures as temperature 0 does."""
    FluidPipeline(small_model("discrete")).save_pretrained(tmp_path / "ids")
    base = ("sample", tmp_path / "ids", "a", "--seed", 1, "--steps", 2)
    ran = {
        "plain": ((), "fused"),
        "reference": (("--head-backend", "reference"), "reference"),
        "limited": (("--head-option", "top_k=1", "--head-option", "top_p=0.9"), "reference"),
        "cold": (("--temperature", 0.0), "fused"),
    }
    for name, (options, backend) in ran.items():
        code, out, err = fluid(*base, *options, "--out", tmp_path / name)
        assert (code, err) == (0, "")
        assert out.rstrip().endswith(f"{backend} sampler of the head)")
    plain, reference, limited, cold = (pixels(tmp_path / name / "00000.png") for name in ran)
    assert np.array_equal(plain, reference)
    assert np.array_equal(limited, cold)
    assert not np.array_equal(plain, limited)


def test_a_run_that_has_not_finished_says_how_to_continue(fluid, saved_run):
    """Interrupted runs have a configuration and no model yet."""
    (saved_run / "config.json").write_text("{}")
    shutil.rmtree(saved_run / "model")
    code, out, err = fluid("sample", saved_run, "a")
    assert (code, out) == (1, "")
    assert "has not finished" in err
    assert f"--out {saved_run} --resume" in err.replace("\n", " ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "{config}", "training.num_stepz=2"), "num_stepz"),
        (("train", "{config}", "training.num_steps=many"), "many"),
        (("train", "{config}", "head.name=softmax", "head.options={{}}"), "produces continuous tokens"),
        (("train", "{config}", "order.name=rastr"), "Did you mean 'raster'"),
        (("train", "nowhere.toml"), "There is no configuration file"),
        (("train", "{config}", "--out", "{config}"), "can not be written"),
        (("sample", "nowhere", "a"), "Expected the folder of a saved model, found nothing at nowhere"),
        (("sample", "{run}", ""), "empty"),
        (("sample", "{run}", "x" * 1000), "1000"),
        (("sample", "{run}", "a", "--steps", "0"), "num_inference_steps as a whole number of 1 or more, found 0"),
        (("sample", "{run}", "a", "--steps", "99"), "found num_steps=99"),
        (("sample", "{run}", "a", "--guidance", "nan"), "guidance scale"),
        (("sample", "{run}", "a", "--guidance-schedule", "interval"), "two shares of progress"),
        (("sample", "{run}", "a", "--guidance-interval", "0.2", "0.8"), "no meaning in the schedule 'constant'"),
        (("sample", "{run}", "a", "--temperature", "-1"), "temperature"),
        (("sample", "{run}", "a", "--images-per-prompt", "0"), "--images-per-prompt, found 0"),
        (("sample", "{run}", "a", "--seed", "-4"), "seed"),
        (("sample", "{run}", "a", "--head-option", "top_k"), "such as 'top_k=50'"),
        (("sample", "{run}", "a", "--head-option", "top_k=5"), "top_k"),
        (("sample", "{run}", "a", "--batch-size", "0"), "--batch-size, found 0"),
        (("sample", "{run}", "a", "--order", "haltn"), "Did you mean 'halton'"),
        (("sample", "{run}", "a", "--order", "raster"), "trained with bidirectional attention"),
        (("sample", "{run}", "a", "--order", "halton", "--order-option", "step=linear"), "step"),
        (("sample", "{run}", "a", "--order-option", "steps=linear"), "add --order NAME"),
        (("sample", "{run}", "a", "--device", "abacus"), "abacus"),
        (("sample", "{run}", "--prompts", "nowhere.txt"), "no file of prompts at nowhere.txt"),
        (("sample", "{run}", "--prompts", "{config}"), "ends in .txt or .jsonl"),
        (("sample", "{run}", "a", "--out", "{config}"), "can not be written"),
        (("sample", "{run}/model/model.safetensors", "a"), "Expected the folder of a saved model"),
    ],
)
def test_mistakes_end_with_a_message_and_exit_code_one(fluid, config, saved_run, arguments, message, tmp_path):
    """No traceback, nothing on the standard output, and no file but those that were there."""
    arguments = [argument.format(config=config, run=saved_run) for argument in arguments]
    before = {path: path.read_bytes() for path in [*tmp_path.rglob("*"), *saved_run.rglob("*")] if path.is_file()}
    code, out, err = fluid(*arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert "Traceback" not in err
    assert err.count("\n") < 15
    after = {path: path.read_bytes() for path in [*tmp_path.rglob("*"), *saved_run.rglob("*")] if path.is_file()}
    assert after == before


@pytest.fixture
def saved_run(small_model, tmp_path):
    """A folder that looks like a finished run, without the time to train one."""
    folder = tmp_path / "finished"
    FluidPipeline(small_model(), weights="ema").save_pretrained(folder / "model")
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("train",),
        ("sample",),
        ("sample", "x"),
        ("sample", "x", "a", "--prompts", "file.txt"),
        ("sample", "x", "a", "--guidance-schedule", "wild"),
        ("paint",),
    ],
)
def test_a_command_line_that_can_not_be_understood_ends_with_two(fluid, arguments):
    """Usage goes to the error output."""
    code, out, err = fluid(*arguments)
    assert (code, out) == (2, "")
    assert "Usage: " in err


def test_the_program_trains_and_samples(config, warm_start, tmp_path):
    """As a newcomer runs it: two real processes, with exit code 0, and a third that fails in one message."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}

    def run(*arguments):
        command = [warm_start.python, "-m", "fluid_core.cli", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    trained = run("train", config, "training.num_steps=2", "--out", "run")
    assert (trained.returncode, trained.stdout.split(" steps")[0]) == (0, "Trained 2"), trained.stderr
    sampled = run("sample", "run", "a red circle", "--steps", "1", "--out", "pictures")
    assert sampled.returncode == 0, sampled.stderr
    assert pixels(tmp_path / "pictures/00000.png").shape == (24, 24, 3)
    failed = run("train", config, "training.num_steps=-2")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "'num_steps' must be > 0: -2 @ $.training" in failed.stderr
    assert "Traceback" not in failed.stderr
