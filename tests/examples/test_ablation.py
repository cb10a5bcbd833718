"""`examples/ablation.py`, shortened: four models, one report, and nothing is trained twice."""

import json
import math

import pytest
from PIL import Image

KEYS = {
    "tokenizer",
    "head",
    "order",
    "parameters",
    "steps",
    "validation_loss",
    "scores",
    "images_per_second",
}
MODELS = [
    ("patch-codebook", "softmax", "raster"),
    ("patch-codebook", "softmax", "random"),
    ("pixel-patches", "diffusion", "raster"),
    ("pixel-patches", "diffusion", "random"),
]


def study(run_example, folder):
    """Run the study with two steps of a very small model, and return what was printed."""
    few = ("--steps", 2, "--size", "debug", "--batch-size", 4, "--prompts-per-task", 1, "--head-steps", 3)
    return run_example("ablation.py", *few, "--out", folder)


@pytest.fixture(scope="module")
def finished_study(run_example, tmp_path_factory):
    """The folder of a finished study, and what was printed."""
    folder = tmp_path_factory.mktemp("ablation") / "out"
    return folder, study(run_example, folder)


@pytest.mark.slow
def test_the_report_has_a_row_for_each_model(finished_study):
    """Four rows with the four combinations, equal budgets, and finite figures."""
    rows = json.loads((finished_study[0] / "report.json").read_text())
    assert [(row["tokenizer"], row["head"], row["order"]) for row in rows] == MODELS
    for row in rows:
        assert set(row) >= KEYS
        assert row["steps"] == 2
        assert row["parameters"] > 10_000
        assert math.isfinite(row["validation_loss"])
        assert row["images_per_second"] > 0
        assert len(row["scores"]) == 7
        assert all(0.0 <= share <= 1.0 for share in row["scores"].values())


@pytest.mark.slow
def test_losses_that_can_not_be_compared_stand_apart(finished_study):
    """The table has one column for cross-entropy and one for noise prediction; each row fills one of them."""
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in (finished_study[0] / "report.md").read_text().splitlines()
        if line.startswith("|") and not line.startswith("|-")
    ]
    head, *rows = table
    entropy, noise = head.index("cross-entropy"), head.index("noise-prediction loss")
    assert len(rows) == len(MODELS)
    for row, (_, kind, _) in zip(rows, MODELS, strict=True):
        assert bool(row[entropy]) == (kind == "softmax")
        assert bool(row[noise]) == (kind == "diffusion")


@pytest.mark.slow
def test_the_comparison_sheet_opens(finished_study):
    """One picture holds four rows of pictures of the same prompts."""
    with Image.open(finished_study[0] / "comparison.png") as sheet:
        sheet.load()
        assert sheet.width > 6 * 100
        assert sheet.height > 4 * 100


@pytest.mark.slow
def test_a_finished_study_is_not_trained_again(finished_study, run_example):
    """A second run measures the same models and writes the same report."""
    folder, printed = finished_study
    assert "validation loss" in printed
    report = (folder / "report.json").read_text()
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*")}
    again = study(run_example, folder)
    assert "validation loss" not in again
    assert {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*")} == before
    assert (folder / "report.json").read_text() == report
