"""`fluid edit`: what it leaves, what it prints, and how it fails."""

import sys

import numpy as np
import pytest
from PIL import Image

from fluid_core import FluidPipeline
from fluid_core.cli import main
from fluid_core.png_metadata import read_metadata


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
def files(pipeline, picture, mask, noise_of, small_model, tmp_path):
    """A run's folder with a model, one of raster order, pictures and masks."""
    pipeline.save_pretrained(tmp_path / "run" / "model")
    FluidPipeline(small_model(order="raster")).save_pretrained(tmp_path / "raster")
    picture.save(tmp_path / "picture.png")
    noise_of(48, 30, seed=2).save(tmp_path / "wide.png")
    mask.save(tmp_path / "mask.png")
    Image.new("L", (24, 24)).save(tmp_path / "black.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return tmp_path


def pixels(path):
    """What a PNG shows."""
    return np.asarray(Image.open(path))


def test_inpainting_leaves_results_and_a_sheet(fluid, files, picture, mask):
    """As the pipeline draws them with the same seed; every file says how it was made."""
    call = ("edit", "run", "--image", "picture.png", "--mask", "mask.png", "--prompt", "a red circle", "--seed", 5)
    settings = ("--images", 2, "--steps", 2, "--guidance", 2.0, "--negative-prompt", "ugly", "--order", "halton")
    code, out, err = fluid(*call, *settings, "--blend", 2, "--out", "results")
    assert (code, err) == (0, "")
    names = sorted(path.name for path in (files / "results").iterdir())
    assert names == ["00000.png", "00001.png", "sheet.png"]
    loaded = FluidPipeline.from_pretrained(files / "run" / "model")
    from fluid_orders import HaltonOrder

    expected = loaded.inpaint(
        "a red circle",
        picture,
        mask,
        seed=5,
        num_images_per_prompt=2,
        num_inference_steps=2,
        guidance_scale=2.0,
        negative_prompt="ugly",
        order=HaltonOrder(),
        blend=2,
    )
    for index, image in enumerate(expected.images):
        path = files / "results" / f"{index:05d}.png"
        assert np.array_equal(pixels(path), np.asarray(image))
        assert np.array_equal(pixels(path)[~np.array(mask)], np.array(picture)[~np.array(mask)])
        said = read_metadata(path)
        assert (said["prompt"], said["seed"], said["index"]) == ("a red circle", expected.seeds[index], index)
        assert said["edit"] == {
            "image": "picture.png",
            "mask": "mask.png",
            "box": None,
            "keep": None,
            "fit": "exact",
            "blend": 2,
        }
        assert said["model"]["folder"] == "run/model"
        assert said["settings"]["guidance"] == 2.0
    lines = out.splitlines()
    assert [line.split("seed ")[1] for line in lines[:2]] == [str(seed) for seed in expected.seeds]
    assert lines[2].endswith("(raw weights, fused sampler of the head)")
    # Four tiles: given, mask and two results.
    assert Image.open(files / "results" / "sheet.png").width == 4 * 174 + 14


def test_outpainting_and_variations(fluid, files, picture):
    """A box, or a share to keep; a fit for pictures of other proportions; without a prompt; a default folder."""
    code, out, err = fluid(
        "edit", "run", "--image", "wide.png", "--box", 0, 0, 16, 16, "--fit", "crop", "--images", 1, "--prompt", "a"
    )
    assert (code, err) == (0, "")
    expected = Image.open(files / "wide.png").resize((16, 16), Image.Resampling.LANCZOS, box=(9, 0, 39, 30))
    assert np.array_equal(pixels(files / "edits" / "00000.png")[:16, :16], np.asarray(expected))
    assert read_metadata(files / "edits" / "00000.png")["edit"]["box"] == [0, 0, 16, 16]
    code, out, err = fluid("edit", "run", "--image", "picture.png", "--keep", 0.5, "--seed", 1, "--out", "varied")
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == 5
    loaded = FluidPipeline.from_pretrained(files / "run" / "model")
    varied = loaded.variation(picture, keep=0.5, seed=1, num_images_per_prompt=4)
    assert np.array_equal(pixels(files / "varied" / "00003.png"), np.asarray(varied.images[3]))
    assert read_metadata(files / "varied" / "00003.png")["prompt"] is None


def test_a_folder_with_files_is_written_over_on_request_only(fluid, files):
    """Results of an earlier call are kept."""
    call = ("edit", "run", "--image", "picture.png", "--keep", 0.5, "--images", 1)
    assert fluid(*call, "--seed", 1)[0] == 0
    first = (files / "edits" / "00000.png").read_bytes()
    code, out, err = fluid(*call, "--seed", 2)
    assert (code, out) == (1, "")
    assert "holds files already" in err
    assert (files / "edits" / "00000.png").read_bytes() == first
    assert fluid(*call, "--seed", 2, "--overwrite")[0] == 0
    assert (files / "edits" / "00000.png").read_bytes() != first


def test_written_over_is_the_whole_edit(fluid, files):
    """Nothing of an earlier edit stays beside the new one, and what else is in the folder does."""
    call = ("edit", "run", "--image", "picture.png", "--keep", 0.5, "--seed", 1)
    assert fluid(*call, "--images", 3)[0] == 0
    (files / "edits" / "notes.txt").write_text("mine")
    assert fluid(*call, "--images", 1, "--overwrite")[0] == 0
    assert {path.name for path in (files / "edits").iterdir()} == {"00000.png", "sheet.png", "notes.txt"}


def test_what_is_not_an_edits_own_stays(fluid, files):
    """The picture that is edited, though it lies among the results, and pictures of `fluid sample`."""
    call = ("edit", "run", "--keep", 0.5, "--seed", 1, "--overwrite")
    assert fluid(*call, "--image", "picture.png", "--images", 3)[0] == 0
    assert fluid(*call, "--image", "edits/00002.png", "--images", 1)[0] == 0
    assert {path.name for path in (files / "edits").iterdir()} == {"00000.png", "00002.png", "sheet.png"}
    (files / "edits" / "run.json").write_text("{}")
    code, _, err = fluid(*call, "--image", "picture.png")
    assert code == 1
    assert "pictures of `fluid sample`" in err
    assert (files / "edits" / "00002.png").exists()


def test_what_is_edited_is_never_written_over(fluid, files):
    """Not even with --overwrite: as a picture, as a mask, or as the sheet; nothing is drawn then."""
    results = files / "results"
    results.mkdir()
    for given, name in (("picture.png", "00001.png"), ("picture.png", "sheet.png"), ("mask.png", "00000.png")):
        (results / name).write_bytes((files / given).read_bytes())
        image, mask = ("picture.png", results / name) if given == "mask.png" else (results / name, "mask.png")
        call = ("edit", "run", "--image", image, "--mask", mask, "--images", 2, "--steps", 1, "--overwrite")
        code, out, err = fluid(*call, "--out", "results")
        assert (code, out) == (1, "")
        assert f"A result would be written over results/{name}, which is to be edited" in err
        assert (results / name).read_bytes() == (files / given).read_bytes()
        (results / name).unlink()


def test_an_edit_without_a_seed_can_be_repeated(fluid, files):
    """It says with which one, and so do its pictures."""
    call = ("edit", "run", "--image", "picture.png", "--mask", "mask.png", "--images", 2, "--steps", 2)
    code, out, err = fluid(*call, "--out", "one")
    assert (code, err) == (0, "")
    seed = out.splitlines()[-1].removeprefix("The same again: --seed ")
    assert read_metadata(files / "one/00001.png")["edit_seed"] == int(seed)
    assert fluid(*call, "--seed", seed, "--out", "two")[0] == 0
    for name in ("00000.png", "00001.png"):
        assert np.array_equal(pixels(files / "one" / name), pixels(files / "two" / name))


def test_a_place_that_can_not_be_written_is_found_before_drawing(fluid, files, monkeypatch):
    """Nobody waits for pictures that then can not be saved."""

    def never(*_arguments, **_settings):
        raise AssertionError("drew")

    monkeypatch.setattr(FluidPipeline, "variation", never)
    (files / "taken").write_text("a file")
    code, _, err = fluid("edit", "run", "--image", "picture.png", "--keep", 0.5, "--out", "taken")
    assert code == 1
    assert "taken can not be written" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("raster", "--image", "picture.png", "--keep", 0.5), "RasterOrder can not edit pictures"),
        (("nowhere", "--image", "picture.png", "--keep", 0.5), "found nothing at nowhere"),
        (("run", "--image", "nowhere.png", "--keep", 0.5), "picture at nowhere.png, found no file"),
        (("run", "--image", "broken.png", "--keep", 0.5), "Could not read the picture broken.png"),
        (("run", "--image", "picture.png", "--mask", "wide.png"), "24 x 24 pixels (width x height), found 48 x 30"),
        (("run", "--image", "picture.png", "--mask", "black.png"), "leaves nothing to draw"),
        (("run", "--image", "wide.png", "--keep", 0.5), "found one of 48 x 30"),
        (("run", "--image", "picture.png", "--keep", 1.0), "less than 1, found 1.0"),
        (("run", "--image", "picture.png", "--box", 0, 0, 30, 30), "within the 24 x 24"),
        (("run", "--image", "picture.png", "--box", 0, 0, 16, 16, "--blend", -1), "found -1"),
        (("run", "--image", "picture.png", "--keep", 0.5, "--images", 0), "num_images_per_prompt"),
        (("run", "--image", "picture.png", "--keep", 0.5, "--prompt", ""), "empty"),
        (("run", "--image", "picture.png", "--keep", 0.5, "--order", "raster"), "RasterOrder can not edit pictures"),
        (("run", "--image", "picture.png", "--keep", 0.5, "--device", "moon"), "moon"),
    ],
)
def test_mistakes_end_with_a_message_and_exit_code_one(fluid, files, arguments, message):
    """No traceback, nothing on the standard output, and no new file."""
    before = set(files.rglob("*"))
    code, out, err = fluid("edit", *arguments)
    assert (code, out) == (1, "")
    assert message in err
    assert "Traceback" not in err
    assert set(files.rglob("*")) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("--image", "picture.png"),
        ("--image", "picture.png", "--keep", "0.5", "--mask", "mask.png"),
        ("--image", "picture.png", "--keep", "0.5", "--blend", "2"),
        ("--keep", "0.5"),
        ("--image", "picture.png", "--keep", "0.5", "--fit", "pad"),
    ],
)
def test_a_command_line_that_can_not_be_understood_ends_with_two(fluid, files, arguments):
    """None or several of the three ways to edit, or no picture."""
    code, out, err = fluid("edit", "run", *arguments)
    assert (code, out) == (2, "")
    assert "Usage: " in err
