"""`fluid tokenizer report`: several tokenizers on the same pictures, from files and folders to a page."""

import hashlib
import json

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fluid_core import FluidPipeline
from fluid_core.commands.program import app
from fluid_core.configuration import ComponentChoice
from fluid_core.data.options import ShapesOptions
from fluid_core.data.shapes.dataset import build_shapes
from fluid_core.errors import CheckpointError, ConfigurationError, InvalidRequestError
from fluid_core.evaluation.reconstruction_sheet import reconstruction_sheet
from fluid_core.evaluation.tokenizer_report import ReportSettings, write_tokenizer_report
from fluid_core.exchange import DatasetContext

NETWORK = ComponentChoice(name="random-convolutions", options={"channels": [4]})


@pytest.fixture
def files(tmp_path):
    """Exact patches, and codes for them, in TOML files; one has further sections."""
    (tmp_path / "exact.toml").write_text(
        "[tokenizer]\nname = 'pixel-patches'\noptions = { image_size = 32, patch_size = 8 }\n"
    )
    (tmp_path / "codes.toml").write_text(
        "[tokenizer]\nname = 'patch-codebook'\n"
        "options = { image_size = 32, patch_size = 8, vocabulary_size = 16 }\n[head]\nname = 'softmax'\n"
    )
    return [tmp_path / "exact.toml", tmp_path / "codes.toml"]


def settings(**others):
    """A report on few pictures."""
    return ReportSettings(
        data=ComponentChoice(name="shapes"),
        **{"num_images": 20, "num_fit_images": 60, "feature_network": NETWORK, "batch_size": 8, **others},
    )


def test_a_report_from_the_command_line(files, tmp_path, monkeypatch):
    """The page, the figures and the picture are there, and agree with each other."""
    monkeypatch.chdir(tmp_path)
    call = [
        "tokenizer",
        "report",
        "exact.toml",
        "codes.toml",
        "--images",
        "20",
        "--fit-images",
        "60",
        "--out",
        "report",
        "--feature-network",
        "random-convolutions",
    ]
    result = CliRunner().invoke(app, [*call, "--feature-option", "channels=[4]"])
    assert result.exit_code == 0, result.output
    assert "exact: PSNR 100.00 dB  SSIM 1.0000  Frechet" in result.output
    document = json.loads((tmp_path / "report/report.json").read_text())
    assert [one["label"] for one in document["tokenizers"]] == ["exact", "codes"]
    codes = document["tokenizers"][1]["figures"]
    assert 10 < codes["psnr"] < 60
    assert codes["bits_per_image"]["stored"] == 16 * 4
    assert 0 < codes["bits_per_image"]["informative"] <= 16 * 4
    assert codes["frechet"]["value"] > document["tokenizers"][0]["figures"]["frechet"]["value"]
    page = (tmp_path / "report/report.md").read_text()
    assert f"| `codes` | {codes['psnr']:.2f} | {codes['ssim']:.4f} |" in page
    assert "| `exact` | exact | 1.0000 |" in page
    assert "random convolutions (4 channels, seed 0, untrained)" in page
    assert "FID only where" in page
    with Image.open(tmp_path / "report/reconstructions.png") as sheet:
        assert sheet.size[0] > sheet.size[1] > 300


def test_settings_and_pictures_can_be_checked(files, tmp_path):
    """The JSON names everything the figures depend on, down to the pictures' own bytes."""
    write_tokenizer_report(files, settings(seed=4), tmp_path / "report")
    found = json.loads((tmp_path / "report/report.json").read_text())
    assert found["packages"]["torch"] == torch.__version__
    assert found["settings"]["split"] == "validation"
    assert found["settings"]["image_size"] == [32, 32]
    assert found["settings"]["feature_network"]["options"] == {"channels": [4]}
    context = DatasetContext(image_size=(32, 32), split="validation", seed=4)
    dataset = build_shapes(ShapesOptions(), context)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(4))[:20]
    pictures = torch.stack([dataset[int(index)].image for index in order])
    assert found["settings"]["pictures_sha256"] == hashlib.sha256(pictures.numpy().tobytes()).hexdigest()
    identities = {one["identity"] for one in found["tokenizers"]}
    assert len(identities) == 2


def test_reports_can_be_repeated(files, tmp_path):
    """The same call has the same figures, batch size aside."""
    first = write_tokenizer_report(files, settings(), tmp_path / "a").figures
    again = write_tokenizer_report(files, settings(batch_size=20), tmp_path / "b").figures
    for label, figures in first.items():
        assert again[label].psnr == pytest.approx(figures.psnr, rel=1e-6)
        assert again[label].frechet.value == pytest.approx(figures.frechet.value, rel=1e-4, abs=1e-9)
        assert again[label].codebook == figures.codebook


def test_the_tokenizer_of_a_saved_model_is_taken_with_its_state(small_model, tmp_path):
    """It is fitted already, and not fitted again; a run's folder stands for its model."""
    model = small_model("discrete")
    FluidPipeline(model).save_pretrained(tmp_path / "run/model")
    notes = []
    for folder in (tmp_path / "run", tmp_path / "run/model"):
        found = write_tokenizer_report([folder], settings(feature_network=None), tmp_path / "report", note=notes.append)
        document = json.loads((tmp_path / "report/report.json").read_text())
        assert document["tokenizers"][0]["name"] == "patch-codebook"
        assert found.figures[folder.name].codebook.vocabulary_size == 24
        assert found.figures[folder.name].frechet is None
    assert not any("fitted" in note for note in notes)
    assert "No Frechet distance was measured" in (tmp_path / "report/report.md").read_text()


def test_what_can_not_be_compared_is_refused(files, tmp_path):
    """Other sizes, the same label twice, files and folders without a tokenizer; nothing is written."""
    (tmp_path / "large.toml").write_text("[tokenizer]\nname = 'pixel-patches'\noptions = { image_size = 64 }\n")
    (tmp_path / "empty.toml").write_text("[data]\nname = 'shapes'\n")
    (tmp_path / "folder").mkdir()
    for paths, error, message in (
        ([files[0], tmp_path / "large.toml"], ConfigurationError, "exact: 32 x 32, large: 64 x 64"),
        ([files[0], files[0]], ConfigurationError, "found one of these twice"),
        ([tmp_path / "empty.toml"], ConfigurationError, r"a section \[tokenizer\].*found data"),
        ([tmp_path / "folder"], CheckpointError, "found neither"),
        ([], ConfigurationError, "at least one tokenizer"),
    ):
        with pytest.raises(error, match=message):
            write_tokenizer_report(paths, settings(), tmp_path / "report")
    assert not (tmp_path / "report/report.md").exists()
    with pytest.raises(ConfigurationError, match="num_images to be 1 or more"):
        settings(num_images=0)


def test_the_sheet_enlarges_small_pictures_without_smoothing():
    """Every pixel of a tile is one of the picture, and rows stand below each other."""
    rows = [[Image.new("RGB", (16, 16), colour)] * 2 for colour in ("red", "blue")]
    sheet = reconstruction_sheet(rows, [["original"], ["mine", "PSNR 12.0 dB"]], title="Reconstructions")
    colours = {colour: count for count, colour in sheet.getcolors(1 << 20)}
    assert colours[(255, 0, 0)] == colours[(0, 0, 255)] == 2 * 112 * 112
    with pytest.raises(InvalidRequestError, match="a label each"):
        reconstruction_sheet(rows, [["original"]], title="")
