"""`fluid evaluate geneval` and `geneval-judge`: the official layout, results, and going on after a kill."""

import json

import pytest
from PIL import Image

from fluid_core.evaluation.result_file import read_result


def names_in(folder):
    """Files below a folder, as paths."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def content(folder):
    """Files below a folder that decide results, as bytes."""
    return {name: (folder / name).read_bytes() for name in names_in(folder) if name.endswith((".png", ".jsonl"))}


@pytest.fixture
def drawn(fluid, saved_model, metadata, tmp_path):
    """A folder of pictures, two for each prompt."""
    code, out, err = fluid(
        *("evaluate", "geneval", saved_model, "--metadata", metadata, "--out", tmp_path / "pictures"),
        *("--images-per-prompt", 2, "--steps", 3, "--batch-size", 4),
    )
    assert code == 0, err
    assert "6 pictures, 6 of them drawn now" in out
    return tmp_path / "pictures"


def test_pictures_are_in_the_official_layout(drawn, metadata):
    """A folder of five digits for each line, with that line, the samples and a grid."""
    lines = metadata.read_text().splitlines()
    per_prompt = ("grid.png", "metadata.jsonl", "samples/0000.png", "samples/0001.png")
    expected = [f"{number:05d}/{name}" for number in range(len(lines)) for name in per_prompt]
    assert names_in(drawn) == [*expected, "run.json", "sheet.png"]
    for number, line in enumerate(lines):
        assert (drawn / f"{number:05d}/metadata.jsonl").read_text() == line + "\n"
    with Image.open(drawn / "00001/samples/0000.png") as picture:
        assert picture.size == (24, 24)
        assert picture.text["prompt"] == "a photo of two tv remotes"
    with Image.open(drawn / "00002/grid.png") as grid:
        assert grid.size == (48, 24)
    pixels = {(drawn / name).read_bytes() for name in names_in(drawn) if "samples" in name}
    assert len(pixels) == 6


def test_drawing_goes_on_after_a_kill(drawn, fluid, saved_model, metadata, tmp_path):
    """What is missing is drawn again, the same to the byte; another run is refused."""
    whole = content(drawn)
    for name in ("00000/samples/0001.png", "00002/metadata.jsonl", "00002/grid.png"):
        (drawn / name).unlink()
    again = ("evaluate", "geneval", saved_model, "--metadata", metadata, "--out", drawn, "--images-per-prompt", 2)
    code, out, err = fluid(*again, "--steps", 3, "--batch-size", 4)
    assert code == 0, err
    assert "1 of them drawn now" in out
    assert content(drawn) == whole
    code, _, err = fluid(*again, "--steps", 3, "--batch-size", 4, "--seed", 1)
    assert code == 1
    assert "seed: 42 before, 1 now" in err
    (drawn / "run.json").unlink()
    code, _, err = fluid(*again)
    assert code == 1
    assert "no run.json" in err


def test_judging_writes_results_and_a_summary(drawn, detector, clip, fluid):
    """One line per picture with the official keys, and a record of what judged what."""
    code, out, err = fluid("evaluate", "geneval-judge", drawn, "--detector", detector, "--clip", clip)
    assert code == 0, err
    assert "overall" in out
    assert "official set has 553" in err
    results = [json.loads(line) for line in (drawn / "judged/results.jsonl").read_text().splitlines()]
    keys = ["filename", "tag", "prompt", "correct", "reason", "metadata", "details"]
    assert [list(result) for result in results] == [keys] * 6
    assert results[2]["filename"] == str(drawn / "00001/samples/0000.png")
    for result in results:
        assert result["correct"] == (result["reason"] == "")
        assert json.loads(result["metadata"])["prompt"] == result["prompt"]
        for boxes in json.loads(result["details"]).values():
            assert all(len(box) == 5 and box[4] > 0.3 for box in boxes)
    record = read_result(drawn / "judged/geneval.json")
    assert record.what == "geneval"
    assert record.num_images == 6
    assert record.seeds == {"sampling": 42}
    assert record.model.folder == "tiny"
    assert record.settings["judge"]["counting_score"] == 0.9
    assert record.settings["sampling"]["steps"] == 3
    assert len(record.settings["clip"]["sha256"]) == 64
    tasks = record.values["by_task"]
    assert record.values["overall"] == pytest.approx(sum(task["score"] for task in tasks.values()) / 3)


def test_judging_goes_on_and_notices_changes(drawn, detector, clip, fluid, monkeypatch):
    """Judged prompts are not looked at again, unless their pictures or the thresholds changed."""
    from fluid_core.evaluation.geneval.detector import Mask2FormerDetector

    looked = []
    detect = Mask2FormerDetector.detect
    monkeypatch.setattr(
        Mask2FormerDetector, "detect", lambda self, pictures: (looked.append(len(pictures)), detect(self, pictures))[1]
    )
    judge = ("evaluate", "geneval-judge", drawn, "--detector", detector, "--clip", clip)
    assert fluid(*judge)[0] == 0
    results = (drawn / "judged/results.jsonl").read_bytes()
    assert looked == [2, 2, 2]
    (drawn / "judged/parts/00001.json").unlink()
    (drawn / "judged/results.jsonl").unlink()
    assert fluid(*judge)[0] == 0
    assert looked == [2, 2, 2, 2]
    assert (drawn / "judged/results.jsonl").read_bytes() == results
    Image.new("RGB", (24, 24)).save(drawn / "00002/samples/0001.png")
    assert fluid(*judge)[0] == 0
    assert looked == [2, 2, 2, 2, 2]
    code, _, err = fluid(*judge, "--threshold", 0.2)
    assert code == 0
    assert len(looked) == 8
    assert "thresholds are not GenEval's own" in err


@pytest.mark.slow
def test_two_processes_agree_with_one(
    fluid_in_processes, drawn, saved_model, metadata, detector, clip, fluid, tmp_path
):
    """Through torchrun: the same pictures and the same results, to the byte."""
    arguments = ("--images-per-prompt", 2, "--steps", 3, "--batch-size", 4)
    done = fluid_in_processes(
        *(2, "evaluate", "geneval", saved_model, "--metadata", metadata, "--out", tmp_path / "two", *arguments)
    )
    assert done.returncode == 0, done.stderr
    assert content(tmp_path / "two") == content(drawn)
    judge = ("--detector", detector, "--clip", clip, "--out")
    done = fluid_in_processes(2, "evaluate", "geneval-judge", drawn, *judge, tmp_path / "judged-two")
    assert done.returncode == 0, done.stderr
    assert fluid("evaluate", "geneval-judge", drawn, *judge, tmp_path / "judged-one")[0] == 0
    assert content(tmp_path / "judged-two") == content(tmp_path / "judged-one")


def test_mistakes_are_explained(fluid, drawn, detector, clip, saved_model, tmp_path):
    """Folders that are not GenEval's, pictures without metadata, models that are not there, words nobody knows."""
    models = ("--detector", detector, "--clip", clip)
    assert "00000, 00001" in fluid("evaluate", "geneval-judge", tmp_path / "none", *models)[2]
    assert "hf download" in fluid("evaluate", "geneval-judge", drawn, "--detector", tmp_path, "--clip", clip)[2]
    assert "'#999' or 'original'" in fluid("evaluate", "geneval-judge", drawn, *models, "--background", "vague")[2]
    (drawn / "00001/samples/0000.png").write_bytes(b"no picture")
    assert "00001/samples/0000.png can not be read" in fluid("evaluate", "geneval-judge", drawn, *models)[2]
    (drawn / "00001/metadata.jsonl").unlink()
    assert "being drawn" in fluid("evaluate", "geneval-judge", drawn, *models)[2]
    missing = ("--metadata", tmp_path / "none.jsonl", "--out", tmp_path / "new")
    code, _, err = fluid("evaluate", "geneval", saved_model, *missing)
    assert code == 1
    assert "djghosh13/geneval" in err
