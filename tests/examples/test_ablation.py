"""`examples/ablation.py`, shortened: four models, one report, and nothing is trained twice."""

import json
import math
from pathlib import Path

import pytest
from PIL import Image

from fluid_core.study.grid import study_cells
from fluid_core.study.settings import load_study

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
FEW = (
    "sizes={ debug = { backbone = { size = 'debug' } } }",
    "changes={ training = { batch_size = 4, num_validation_images = 4, num_fit_images = 100 } }",
    "parts.diffusion-small.options.num_sampling_steps=3",
    "evaluation.prompts_per_task=1",
    "evaluation.num_validation_images=8",
)
CONFIGS = Path(__file__).parents[2] / "examples" / "configs"


def study(run_example, folder):
    """Run the study with two steps of a very small model, and return what was printed."""
    return run_example("ablation.py", *FEW, "--steps", 2, "--jobs", 2, "--out", folder)


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
    lines = (finished_study[0] / "report.md").read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    head, _, *rows = table
    entropy, noise = head.index("cross-entropy"), head.index("noise-prediction loss")
    assert len(rows) == len(MODELS)
    for row, (_, kind, _) in zip(rows, MODELS, strict=True):
        assert bool(row[entropy]) == (kind == "softmax")
        assert bool(row[noise]) == (kind == "diffusion")


@pytest.mark.slow
def test_the_comparison_sheet_opens(finished_study):
    """One picture holds four rows of pictures of the same six prompts."""
    with Image.open(finished_study[0] / "comparison.png") as sheet:
        sheet.load()
        assert sheet.width > 6 * 100
        assert sheet.height > 4 * 100


@pytest.mark.slow
def test_a_finished_study_is_not_trained_again(finished_study, run_example):
    """A second run writes the same report of the same models."""
    folder, printed = finished_study
    assert "validation loss" in printed
    report = (folder / "report.json").read_text()
    before = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*")}
    again = study(run_example, folder)
    assert "validation loss" not in again
    assert {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("*")} == before
    assert (folder / "report.json").read_text() == report


def test_a_third_party_head_is_one_line_of_the_file(tmp_path):
    """The line that stands in the file as a comment adds a variant once it is none."""
    text = (CONFIGS / "study.toml").read_text()
    assert text.count("# mixture-random = ") == 1
    changed = text.replace("# mixture-random = ", "[variants]\nmixture-random = ", 1).replace(
        "[variants]\ndiscrete", "discrete"
    )
    (tmp_path / "study.toml").write_text(changed)
    (tmp_path / "shapes.toml").write_text((CONFIGS / "shapes.toml").read_text())
    cells = study_cells(load_study(tmp_path / "study.toml"))
    assert len(cells) == 5
    assert {cell.config.head.name for cell in cells} == {"softmax", "diffusion", "gaussian-mixture"}


def test_the_study_of_the_results_is_what_it_says():
    """Four variants in five sizes, the smaller two with two seeds, all on the same number of images."""
    cells = study_cells(load_study(CONFIGS / "study-shapes.toml"))
    assert len(cells) == 4 * (2 * 2 + 3)
    assert len({cell.size for cell in cells}) == 5
    assert len({cell.num_images for cell in cells}) == 1
    assert {cell.size for cell in cells if cell.seed == 1} == {"xs", "s"}
