"""`fluid sample` as a run: what it writes, how it goes on, and what it refuses."""

import json
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image, ImageSequence

from fluid_core import FluidPipeline
from fluid_core.claimed_folder import claimed_folder
from fluid_core.png_metadata import read_metadata
from fluid_core.sampling_run.batch_texts import BatchText
from fluid_orders import HaltonOrder, HaltonOrderOptions

PROMPTS = ("a red circle", "two blue squares", "a star")
SETTINGS = ("--seed", 5, "--steps", 3, "--images-per-prompt", 2, "--batch-size", 2)


def contents(folder):
    """The bytes of all files, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def pixels(path):
    """What a picture shows."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


@pytest.fixture
def whole(fluid, saved_model, tmp_path):
    """A finished run of six pictures in three batches."""
    code, _, err = fluid("sample", saved_model, *PROMPTS, *SETTINGS, "--out", tmp_path / "whole")
    assert (code, err) == (0, "")
    return tmp_path / "whole"


def test_each_picture_says_how_it_was_made(whole, saved_model):
    """The PNG tells prompt, seed, settings and model; with them the pipeline draws the same picture."""
    metadata = read_metadata(whole / "00003.png")
    assert (metadata["prompt"], metadata["negative_prompt"], metadata["index"]) == ("two blue squares", None, 3)
    assert metadata["settings"]["steps"] == 3
    assert metadata["settings"]["head_backend"] in ("reference", "fused")
    assert metadata["model"]["folder"] == "tiny"
    assert metadata["model"]["weights"] == "ema"
    assert len(metadata["model"]["identity"]) == 64
    assert set(metadata["packages"]) == {"fluid-core", "torch"}
    described = json.loads((whole / "run.json").read_text())
    assert described["images"][3] == {
        "file": "00003.png",
        "prompt": "two blue squares",
        "negative_prompt": None,
        "seed": metadata["seed"],
        "metadata": {},
    }
    pipeline = FluidPipeline.from_pretrained(saved_model)
    (again,) = pipeline(metadata["prompt"], seed=[metadata["seed"]], num_inference_steps=3).images
    assert np.abs(np.asarray(again).astype(int) - pixels(whole / "00003.png")).max() <= 1


def test_a_run_is_one_call_of_the_pipeline(whole, saved_model):
    """Batches and files make no difference to what one call with that seed draws."""
    pipeline = FluidPipeline.from_pretrained(saved_model)
    images = pipeline(list(PROMPTS), seed=5, num_inference_steps=3, num_images_per_prompt=2).images
    for index, image in enumerate(images):
        assert np.abs(np.asarray(image).astype(int) - pixels(whole / f"{index:05d}.png")).max() <= 1


def test_only_missing_pictures_are_drawn_again(whole, fluid, saved_model):
    """The others stay untouched, the new ones are what they were, and a run that is whole says so."""
    before = contents(whole)
    times = {path.name: path.stat().st_mtime_ns for path in whole.iterdir()}
    (whole / "00001.png").unlink()
    (whole / "00004.png").unlink()
    (whole / ".00004.png.abc.unfinished").write_bytes(b"half")
    code, out, err = fluid("sample", saved_model, *PROMPTS, *SETTINGS, "--out", whole)
    assert (code, err) == (0, "")
    assert [line.split("  ")[0].split("/")[-1] for line in out.splitlines()[:2]] == ["00001.png", "00004.png"]
    assert "Drew the 2 of 6 pictures that were missing." in out
    assert contents(whole) == before
    kept = {name for name in before if name.startswith("0")} - {"00001.png", "00004.png"}
    assert {name: (whole / name).stat().st_mtime_ns for name in kept} == {name: times[name] for name in kept}
    code, out, _ = fluid("sample", saved_model, *PROMPTS, *SETTINGS, "--out", whole)
    assert code == 0
    assert "All 6 pictures of this run" in out
    assert contents(whole) == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("--temperature", 0.5), "temperature: 1.0 before, 0.5 now"),
        (("--seed", 6), "seed: 5 before, 6 now"),
        (("--images-per-prompt", 1), "number of pictures: 6 before, 3 now"),
        (("--negative-prompt", "dark", "--guidance", 2.0), "guidance: 1.0 before, 2.0 now"),
        (("--order", "halton"), "order: None before, 'halton' now"),
    ],
)
def test_other_arguments_are_refused_in_the_same_folder(whole, fluid, saved_model, changes, message, tmp_path):
    """The message says what differs; the pictures stay; --overwrite lets them go."""
    before = contents(whole)
    code, out, err = fluid("sample", saved_model, *PROMPTS, *SETTINGS, *changes, "--out", whole)
    assert (code, out) == (1, "")
    assert message in err
    assert "--overwrite" in err
    assert contents(whole) == before
    if changes[0] == "--images-per-prompt":
        (whole / "notes.txt").write_text("mine")
        code, _, err = fluid("sample", saved_model, *PROMPTS, *SETTINGS, *changes, "--out", whole, "--overwrite")
        assert (code, err) == (0, "")
        assert set(contents(whole)) == {
            "00000.png", "00001.png", "00002.png", "run.json", "sheet.png", "notes.txt"
        }  # fmt: skip


def test_another_model_and_other_prompts_are_refused(whole, fluid, saved_model, small_model, tmp_path):
    """A model of other weights is another one, the same model in another folder is not."""
    FluidPipeline(small_model(seed=1), weights="ema").save_pretrained(tmp_path / "other")
    code, _, err = fluid("sample", tmp_path / "other", *PROMPTS, *SETTINGS, "--out", whole)
    assert code == 1
    assert "another model: tiny before, other now" in err
    code, _, err = fluid("sample", saved_model, *PROMPTS[:2], "a sun", *SETTINGS, "--out", whole)
    assert code == 1
    assert "prompt of 00004.png: 'a star' before, 'a sun' now" in err
    shutil.copytree(saved_model, tmp_path / "moved")
    code, out, _ = fluid("sample", tmp_path / "moved", *PROMPTS, *SETTINGS, "--out", whole)
    assert code == 0
    assert "All 6 pictures" in out


def test_pictures_of_unknown_origin_are_not_taken_for_ones_own(fluid, saved_model, tmp_path):
    """Without run.json nobody knows what drew them; with a damaged one neither."""
    Image.new("RGB", (24, 24)).save(tmp_path / "00000.png")
    code, _, err = fluid("sample", saved_model, "a", "--out", tmp_path)
    assert code == 1
    assert "00000.png and no run.json" in err
    for text in ('{"seed": "x"', '{"seed": 1, "images": [1, 2], "model": {}, "settings": {}}'):
        (tmp_path / "run.json").write_text(text)
        code, _, err = fluid("sample", saved_model, "a", "--out", tmp_path)
        assert code == 1
        assert "describe an earlier part of this run" in err
    code, _, err = fluid("sample", saved_model, "a", "--out", tmp_path, "--overwrite")
    assert (code, err) == (0, "")
    assert read_metadata(tmp_path / "00000.png")["prompt"] == "a"


def test_a_sheet_of_ones_own_is_not_written_over(fluid, saved_model, tmp_path):
    """Nor is anything else done to the folder."""
    (tmp_path / "sheet.png").write_bytes(b"mine")
    code, _, err = fluid("sample", saved_model, "a", "--out", tmp_path)
    assert code == 1
    assert "sheet.png and no run.json" in err
    assert contents(tmp_path) == {"sheet.png": b"mine"}


def test_pictures_that_were_cut_short_are_drawn_again(fluid, saved_model, tmp_path):
    """An empty one and one without its end, a picture and an animation: all come out as they were."""
    call = ("sample", saved_model, *PROMPTS, *SETTINGS, "--animation", "--out", tmp_path / "run")
    assert fluid(*call)[0] == 0
    before = contents(tmp_path / "run")
    (tmp_path / "run/00001.png").write_bytes(b"")
    (tmp_path / "run/00002.png").write_bytes(before["00002.png"][:-1])
    (tmp_path / "run/00004.gif").write_bytes(before["00004.gif"][:40])
    code, out, err = fluid(*call)
    assert (code, err) == (0, "")
    assert "Drew the 3 of 6 pictures that were missing." in out
    assert contents(tmp_path / "run") == before


def test_a_folder_that_another_process_draws_in_is_left_to_it(fluid, saved_model, tmp_path, monkeypatch):
    """A run that names it is refused; one that names none takes the next."""
    pytest.importorskip("fcntl", reason="this system has no such locks")
    with claimed_folder(tmp_path / "samples"):
        code, _, err = fluid("sample", saved_model, "a", "--out", tmp_path / "samples")
        assert code == 1
        assert "Another process writes to" in err
        monkeypatch.chdir(tmp_path)
        code, out, err = fluid("sample", saved_model, "a")
        assert (code, err) == (0, "")
    assert "samples-2/00000.png" in out
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith("samples")} == {"samples-2"}


def test_a_run_that_can_not_begin_leaves_no_folder(fluid, saved_model, tmp_path):
    """A prompt that is too long is found once the folder was looked at."""
    for prompts in (["x" * 1000], ["a", "--negative-prompt", "x" * 1000, "--guidance", 2.0]):
        assert fluid("sample", saved_model, *prompts, "--out", tmp_path / "new")[0] == 1
        assert not (tmp_path / "new").exists()


def test_a_run_without_a_seed_keeps_the_one_it_drew(fluid, saved_model, tmp_path):
    """Resumed, it goes on with it; another run gets another."""
    fluid("sample", saved_model, *PROMPTS, "--steps", 2, "--out", tmp_path / "one")
    before = contents(tmp_path / "one")
    (tmp_path / "one/00001.png").unlink()
    fluid("sample", saved_model, *PROMPTS, "--steps", 2, "--out", tmp_path / "one")
    assert contents(tmp_path / "one") == before
    fluid("sample", saved_model, *PROMPTS, "--steps", 2, "--out", tmp_path / "two")
    seeds = [json.loads((tmp_path / name / "run.json").read_text())["seed"] for name in ("one", "two")]
    assert seeds[0] != seeds[1]


def test_without_a_folder_each_run_gets_its_own(fluid, saved_model, tmp_path):
    """Another run goes to samples-2; the same again is continued where it was."""
    for prompt, folder in (("a", "samples"), ("b", "samples-2"), ("a", "samples")):
        code, out, _ = fluid("sample", saved_model, prompt, "--steps", 1, "--seed", 1)
        assert code == 0
        assert out.splitlines()[-1].startswith(f"{folder}/sheet.png")
    assert not (tmp_path / "samples-3").exists()


def test_a_file_of_prompts_reaches_the_pictures(fluid, saved_model, tmp_path):
    """Seeds, negative prompts and metadata of each line; those of the command line hold for the other lines."""
    lines = [
        {"prompt": "a red circle", "seed": 11, "tag": "colors"},
        {"prompt": "a red circle", "seed": 11, "negative_prompt": "a blue square"},
        {"prompt": "a red circle", "seed": 11},
    ]
    (tmp_path / "p.jsonl").write_text("\n".join(map(json.dumps, lines)))
    call = ("--steps", 2, "--guidance", 4.0, "--temperature", 0.5, "--no-sheet")
    code, out, err = fluid("sample", saved_model, "--prompts", "p.jsonl", *call, "--out", "drawn")
    assert (code, err) == (0, "")
    folder = tmp_path / "drawn"
    assert sorted(contents(folder)) == ["00000.png", "00001.png", "00002.png", "run.json"]
    assert out.splitlines()[-1].startswith("drawn  (ema weights")
    assert read_metadata(folder / "00000.png")["metadata"] == {"tag": "colors"}
    assert [read_metadata(folder / f"0000{i}.png")["seed"] for i in range(3)] == [11, 11, 11]
    # In batches of their own with a negative prompt, so up to rounding.
    assert np.array_equal(pixels(folder / "00000.png"), pixels(folder / "00002.png"))
    assert not np.array_equal(pixels(folder / "00000.png"), pixels(folder / "00001.png"))
    (tmp_path / "other.jsonl").write_text("\n".join(map(json.dumps, [*lines[:2], {**lines[2], "seed": 12}])))
    code, _, err = fluid("sample", saved_model, "--prompts", "other.jsonl", *call, "--out", "drawn")
    assert code == 1
    assert "seed of 00002.png: 11 before, 12 now" in err
    code, _, err = fluid(
        "sample", saved_model, "a red circle", "--negative-prompt", "a blue square", "--prompts", "p.jsonl"
    )
    assert code == 2
    code, _, err = fluid("sample", saved_model, "--prompts", "p.jsonl", "--steps", 1, "--out", "unguided")
    assert code == 0
    assert "through guidance alone" in err


def test_a_prompt_that_is_too_long_is_named_by_its_line(fluid, saved_model, tmp_path):
    """Before anything is written, and not by its place in a batch."""
    (tmp_path / "p.txt").write_text("a\nb\n\n" + "x" * 1000 + "\nc\n")
    code, out, err = fluid("sample", saved_model, "--prompts", "p.txt", "--batch-size", 2, "--out", "drawn")
    assert (code, out) == (1, "")
    assert "p.txt, line 4: " in err
    assert "1000" in err
    assert not (tmp_path / "drawn").exists()


def test_more_text_than_memory_for_it_draws_the_same(whole, fluid, saved_model, tmp_path, monkeypatch):
    """Text that is read again for each batch makes the same files, to the byte."""
    monkeypatch.setattr(BatchText, "num_bytes", 1 << 50)
    code, _, err = fluid("sample", saved_model, *PROMPTS, *SETTINGS, "--out", tmp_path / "again")
    assert (code, err) == (0, "")
    assert contents(tmp_path / "again") == contents(whole)


def test_an_order_can_be_chosen(fluid, saved_model, tmp_path):
    """With its options, as the pipeline draws in it; and the picture says which."""
    options = ("--order", "halton", "--order-option", "seeded_offset=true", "--order-option", "num_steps=4")
    code, _, err = fluid("sample", saved_model, "a", "--seed", 2, *options, "--out", "halton")
    assert (code, err) == (0, "")
    order = HaltonOrder(HaltonOrderOptions(seeded_offset=True, num_steps=4))
    (expected,) = FluidPipeline.from_pretrained(saved_model)("a", seed=2, order=order).images
    assert np.array_equal(pixels(tmp_path / "halton/00000.png"), np.asarray(expected))
    fluid("sample", saved_model, "a", "--seed", 2, "--out", "own")
    assert not np.array_equal(pixels(tmp_path / "halton/00000.png"), pixels(tmp_path / "own/00000.png"))
    settings = read_metadata(tmp_path / "halton/00000.png")["settings"]
    assert (settings["order"], settings["order_options"]) == ("halton", {"seeded_offset": True, "num_steps": 4})


def test_an_animation_ends_with_the_picture(fluid, saved_model, whole, tmp_path):
    """One frame a step, grey where nothing is known yet; without it no picture counts as finished."""
    code, _, err = fluid("sample", saved_model, *PROMPTS, *SETTINGS, "--out", whole, "--animation")
    assert (code, err) == (0, "")
    for index in range(6):
        with Image.open(whole / f"0000{index}.gif") as animation:
            frames = [np.asarray(frame.convert("RGB")).astype(int) for frame in ImageSequence.Iterator(animation)]
        assert len(frames) == 3
        picture = pixels(whole / f"0000{index}.png").astype(int)
        scale = len(frames[-1]) // len(picture)
        assert scale > 1
        # 256 colours: near, not equal.
        assert np.abs(frames[-1][::scale, ::scale] - picture).mean() < 8
        patches = [frame[4 * scale :: 8 * scale, 4 * scale :: 8 * scale] for frame in frames]
        unknown = [int((np.abs(colours - 128).max(axis=-1) <= 1).sum()) for colours in patches]
        assert 9 > unknown[0] > unknown[1] > unknown[2] == 0


def test_a_killed_run_goes_on_to_the_same_pictures(fluid, saved_model, warm_start, environment, tmp_path):
    """SIGKILL in the middle; what is missing is drawn by another process, and every byte is as if nothing happened."""
    prompts = [f"picture {index}" for index in range(24)]
    (tmp_path / "p.txt").write_text("\n".join(prompts))
    call = ["sample", saved_model, "--prompts", tmp_path / "p.txt", "--seed", 9, "--batch-size", 2, "--head-steps", 12]
    assert fluid(*call, "--out", tmp_path / "expected")[0] == 0
    folder = tmp_path / "killed"
    with (tmp_path / "printed.txt").open("wb") as file:
        command = ["-m", "fluid_core.cli", *call, "--out", folder]
        started = warm_start.start(command, output=file, environment=environment)
    deadline = time.monotonic() + 120
    while len(list(folder.glob("0*.png"))) < 3 and started.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    started.send_signal(signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL, "it had finished before it could be killed"
    survived = contents(folder)
    num_survived = sum(name.startswith("0") for name in survived)
    assert 3 <= num_survived < 24
    code, out, err = fluid(*call, "--out", folder)
    assert (code, err) == (0, "")
    assert f"Drew the {24 - num_survived} of 24 pictures that were missing." in out
    assert contents(folder) == contents(tmp_path / "expected")


@pytest.mark.slow
def test_two_processes_draw_what_one_draws(whole, fluid_in_processes, saved_model, tmp_path):
    """They fill in what is missing, to the byte; the first alone sums up, and a mistake is told once."""
    expected = contents(whole)
    missing = {"00000.png", "00003.png", "00005.png", "sheet.png"}
    for name in missing:
        (whole / name).unlink()
    run = fluid_in_processes(2, "sample", saved_model, *PROMPTS, *SETTINGS, "--out", whole)
    assert run.returncode == 0, run.stderr[-3000:]
    assert contents(whole) == expected
    *lines, summary, last = run.stdout.splitlines()
    assert sorted(line.split("  ")[0].split("/")[-1] for line in [*lines, last]) == sorted(missing)
    assert summary == "Drew the 3 of 6 pictures that were missing."
    run = fluid_in_processes(2, "sample", saved_model, *PROMPTS, *SETTINGS, "--seed", 6, "--out", whole)
    assert run.returncode != 0
    assert run.stderr.count("seed: 5 before, 6 now") == 1
    assert contents(whole) == expected


@pytest.mark.slow
def test_two_processes_agree_on_a_fresh_seed(fluid_in_processes, saved_model, tmp_path):
    """Nobody gave one, and all pictures come from the one that is recorded; a process may have nothing to do."""
    run = fluid_in_processes(2, "sample", saved_model, "a", "b", "--steps", 2, "--batch-size", 2, cold=True)
    assert run.returncode == 0, run.stderr[-3000:]
    described = json.loads((tmp_path / "samples/run.json").read_text())
    for index, image in enumerate(described["images"]):
        assert read_metadata(tmp_path / f"samples/0000{index}.png")["seed"] == image["seed"]
    pipeline = FluidPipeline.from_pretrained(saved_model)
    call = pipeline(["a", "b"], seed=described["seed"], num_inference_steps=2)
    assert list(call.seeds) == [image["seed"] for image in described["images"]]
