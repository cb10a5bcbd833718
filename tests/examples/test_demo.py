"""`examples/demo.py`, shortened: everything it promises to leave is there, and can be used further."""

import json
import math

import pytest
from PIL import Image

TASKS = {"single_object", "two_object", "counting", "colors", "position", "color_attr"}


@pytest.fixture(scope="module")
def finished_demo(run_example, tmp_path_factory):
    """The folder of a demo of four steps, and what was printed."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    few = ("--steps", 4, "--prompts-per-task", 1, "--order-steps", 4, "--head-steps", 3)
    return folder, run_example("demo.py", *few, "--out", folder)


@pytest.mark.slow
def test_demo_leaves_what_it_promises(finished_demo):
    """Contact sheet and loss curve open as pictures, scores stand beside chance, and all steps were trained."""
    folder, printed = finished_demo
    for name in ("contact_sheet.png", "loss.png"):
        with Image.open(folder / name) as picture:
            picture.load()
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(maxcolors=2**20)) > 10, f"{name} is empty"
        assert name in printed
    figures = json.loads((folder / "scores.json").read_text())
    assert set(figures["scores"]) == set(figures["chance"]) == TASKS
    shares = [*figures["scores"].values(), *figures["chance"].values(), figures["overall"], figures["chance_overall"]]
    assert all(0.0 <= share <= 1.0 for share in shares)
    assert figures["steps"] == 4
    assert figures["images_per_second"] > 0
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert max(row["step"] for row in rows) == 4
    assert all(math.isfinite(row["validation_loss"]) for row in rows if "validation_loss" in row)
    report = (folder / "report.md").read_text()
    assert all(f"| {task} |" in report for task in TASKS)
    assert "](contact_sheet.png)" in report
    assert "](loss.png)" in report


@pytest.mark.slow
def test_the_model_of_the_demo_draws_more(finished_demo):
    """The trained model can be loaded and asked for another picture."""
    from fluid_core import FluidPipeline

    pipeline = FluidPipeline.from_pretrained(finished_demo[0] / "model")
    (picture,) = pipeline("a green cross", num_inference_steps=2, num_head_steps=2, seed=0).images
    assert picture.size == (32, 32)
    assert pipeline.weights == "ema"


@pytest.mark.slow
def test_a_second_demo_keeps_the_first(finished_demo, run_example):
    """Running it again with the same folder leaves the first alone and takes a new one beside it."""
    folder, _ = finished_demo
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    few = ("--steps", 1, "--prompts-per-task", 1, "--order-steps", 2, "--head-steps", 2)
    run_example("demo.py", *few, "--out", folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert (folder.with_name("out-2") / "contact_sheet.png").is_file()
