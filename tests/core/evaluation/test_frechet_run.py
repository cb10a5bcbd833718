"""`fluid evaluate fid`: from prompts or folders to a record, what it is called, and that it can be interrupted."""

import hashlib
import shutil
import warnings
from importlib.util import find_spec
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from fluid_core.errors import InvalidComponentError
from fluid_core.evaluation.picture_features import inception_choice, named_network
from fluid_core.evaluation.precision_recall import precision_recall
from fluid_core.evaluation.result_file import read_result

NETWORK = ("--network", "random-convolutions", "--network-option", "channels=[3]", "--device", "cpu")


class InceptionStandIn(torch.nn.Module):
    """Takes bytes and gives 2048 features when told to, as the published TorchScript; in truth colours on a grid."""

    def forward(self, images: torch.Tensor, return_features: bool = False) -> torch.Tensor:
        """Features, or a few useless numbers."""
        features = torch.nn.functional.adaptive_avg_pool2d(images, 32).flatten(1)[:, :2048]
        return features if return_features else features[:, :3]


@pytest.fixture
def inception(tmp_path):
    """A TorchScript file with the interface of the Inception of the FID."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(InceptionStandIn()).save(str(tmp_path / "inception.pt"))
    return tmp_path / "inception.pt"


@pytest.fixture
def folder(tmp_path):
    """A function that fills a folder with noise of some brightness and returns it."""

    def make(name, *, brightness=255, count=24, seed=0, ending=".png", size=32):
        (tmp_path / name).mkdir()
        random = np.random.default_rng(seed)
        for index in range(count):
            noise = random.integers(0, brightness, (size, size, 3), dtype=np.uint8)
            Image.fromarray(noise).save(tmp_path / name / f"{index:03d}{ending}")
        return tmp_path / name

    return make


def features_in(out: Path, side: str) -> torch.Tensor:
    """Features that a run has kept."""
    files = sorted((out / "features" / side).glob("*.safetensors"))
    return torch.cat([load_file(file)["features"] for file in files])


def test_drawing_and_measuring_in_one_command(fluid, saved_model, tmp_path):
    """Pictures are drawn for the captions of the data set and compared with its pictures, and all of it is recorded."""
    arguments = ("evaluate", "fid", saved_model, "--data", "shapes", "--num-images", 12, "--guidance", 2, "--seed", 3)
    arguments += (*NETWORK, "--resolution", 32, "--precision-recall", "--batch-size", 5, "--steps", 2)
    code, out, err = fluid(*arguments, "--out", tmp_path / "out")
    assert code == 0, err
    record = read_result(tmp_path / "out" / "frechet-distance.json")
    assert "fid" not in record.values
    assert record.what == "frechet-distance"
    assert any("no FID" in note for note in record.notes)
    assert f"{record.values['frechet_distance']:.4g}" in out
    assert "random convolutions" in out
    assert (record.num_images, record.model.folder, record.model.weights) == (12, "tiny", "ema")
    settings = record.settings
    assert settings["sampling"]["settings"]["guidance"] == 2.0
    assert settings["sampling"]["settings"]["steps"] == 2
    assert record.seeds == {"sampling": 3, "real": 0}
    assert (settings["real"]["name"], settings["real"]["split"], settings["real"]["num_images"]) == (
        "shapes",
        "validation",
        12,
    )
    assert (settings["generated"]["crop"], settings["generated"]["filter"]) == ("center", "lanczos")
    assert settings["generated"]["image_size"] == settings["real"]["image_size"] == [32, 32]
    assert settings["generated"]["file_kinds"] == {"png": 12}
    assert settings["captions"]["num_used"] == 12
    assert settings["network"]["width"] == 6
    shares = precision_recall(features_in(tmp_path / "out", "real"), features_in(tmp_path / "out", "generated"))
    assert (record.values["precision"], record.values["recall"]) == (shares.precision, shares.recall)

    # A kill leaves some pictures and some parts: what is missing is made again, and the figures are the same.
    (tmp_path / "out" / "images" / "00004.png").unlink()
    shutil.rmtree(tmp_path / "out" / "features" / "generated")
    (tmp_path / "out" / "features" / "real" / "000001.safetensors").unlink()
    (tmp_path / "out" / "frechet-distance.json").unlink()
    code, _, err = fluid(*arguments, "--out", tmp_path / "out")
    assert code == 0, err
    again = read_result(tmp_path / "out" / "frechet-distance.json")
    assert again.values == record.values
    assert again.settings == record.settings

    code, _, err = fluid(*arguments, "--temperature", 0.5, "--out", tmp_path / "out")
    assert code == 1
    assert "temperature: 1.0 before, 0.5 now" in err
    code, _, err = fluid(*arguments, "--temperature", 0.5, "--overwrite", "--out", tmp_path / "out")
    assert code == 0, err
    other = read_result(tmp_path / "out" / "frechet-distance.json")
    assert other.values["frechet_distance"] != record.values["frechet_distance"]


@pytest.mark.skipif(find_spec("torchmetrics") is None, reason="torchmetrics, to compare with, is not installed")
def test_torchmetrics_finds_the_same_distance(fluid, folder, tmp_path):
    """On the features that were kept, the distance of the record is that of torchmetrics' FID."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    bright, dark = folder("bright"), folder("dark", brightness=120, count=20, seed=1)
    arguments = ("--images", dark, "--real", bright, "--out", tmp_path / "out")
    code, _, err = fluid("evaluate", "fid", *arguments, *NETWORK)
    assert code == 0, err

    class Passed(torch.nn.Module):
        num_features = 6

        def forward(self, features):
            return features

    metric = FrechetInceptionDistance(feature=Passed(), input_img_size=(6,), normalize=False)
    metric.set_dtype(torch.float64)
    for side, real in (("real", True), ("generated", False)):
        metric.update(features_in(tmp_path / "out", side), real=real)
    record = read_result(tmp_path / "out" / "frechet-distance.json")
    assert record.values["frechet_distance"] == pytest.approx(float(metric.compute()), rel=1e-6)


def test_with_the_inception_it_is_called_fid(fluid, folder, inception, tmp_path):
    """The figure has that name with --inception alone; a file that is not known by its hash is noted."""
    real, generated = folder("real"), folder("generated", brightness=120, count=20, seed=1)
    arguments = ("--images", generated, "--real", real, "--inception", inception, "--out", tmp_path / "out")
    code, out, err = fluid("evaluate", "fid", *arguments, "--device", "cpu")
    assert code == 0, err
    record = read_result(tmp_path / "out" / "fid.json")
    assert f"FID: {record.values['fid']:.4g}  (20 generated and 24 real pictures)" in out
    assert record.what == "fid"
    assert record.model is None
    network = record.settings["network"]
    assert network["inception_of_the_fid"] is True
    assert network["file_sha256"] == hashlib.sha256(inception.read_bytes()).hexdigest()
    assert network["recognised_as"] is None
    assert network["options"]["image_size"] == 299
    assert any("nothing but its user" in note for note in record.notes)


def test_who_resizes_for_the_inception_matters(inception):
    """Before it, as clean-fid does, or inside: two networks, which are told apart and find other features."""
    noise = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    before, inside = (
        named_network(inception_choice(inception, how), torch.device("cpu"), is_inception=True)
        for how in ("bicubic", "inside")
    )
    assert before.identity != inside.identity
    expected = InceptionStandIn()((noise + 1) / 2 * 255, return_features=True)
    torch.testing.assert_close(inside.network.features(noise), expected)
    assert not torch.allclose(before.network.features(noise), expected, atol=1.0)
    with pytest.raises(InvalidComponentError, match="'arguments'"):
        named_network(
            attrs.evolve(
                inception_choice(inception, "inside"),
                options={**inception_choice(inception, "inside").options, "arguments": {"unheard_of": True}},
            ),
            torch.device("cpu"),
        ).network.features(noise)


def test_real_pictures_are_measured_once(fluid, folder, tmp_path):
    """A saved reference gives the same figures without the pictures, and is refused for another network."""
    real, generated = folder("real"), folder("generated", brightness=200, seed=1)
    arguments = ("evaluate", "fid", "--images", generated, "--precision-recall")
    code, _, err = fluid(
        *arguments, *NETWORK, "--real", real, "--save-reference", tmp_path / "ref", "--out", tmp_path / "a"
    )
    assert code == 0, err
    shutil.rmtree(real)
    code, _, err = fluid(*arguments, *NETWORK, "--reference", tmp_path / "ref", "--out", tmp_path / "b")
    assert code == 0, err
    one, other = (read_result(tmp_path / name / "frechet-distance.json") for name in ("a", "b"))
    assert other.values["frechet_distance"] == pytest.approx(one.values["frechet_distance"], rel=1e-9)
    assert (other.values["precision"], other.values["recall"]) == (one.values["precision"], one.values["recall"])
    assert other.settings["real"] == one.settings["real"]
    assert one.settings["real"]["num_images"] == 24
    code, _, err = fluid(
        *arguments, "--network", "random-convolutions", "--reference", tmp_path / "ref", "--out", tmp_path / "c"
    )
    assert code == 1
    assert "another network" in err
    (tmp_path / "ref" / "features.safetensors").unlink()
    code, _, err = fluid(*arguments, *NETWORK, "--reference", tmp_path / "ref", "--out", tmp_path / "d")
    assert code == 1
    assert "holds no features" in err


def test_equal_sets_are_at_no_distance(fluid, folder, tmp_path):
    """A folder compared with itself: zero, and all precise and recalled."""
    same = folder("same")
    arguments = ("--images", same, "--real", same, "--precision-recall", "--out", tmp_path / "out")
    code, _, err = fluid("evaluate", "fid", *arguments, *NETWORK)
    assert code == 0, err
    values = read_result(tmp_path / "out" / "frechet-distance.json").values
    assert values["frechet_distance"] == pytest.approx(0.0, abs=1e-9)
    assert (values["precision"], values["recall"]) == (1.0, 1.0)


def test_what_changes_figures_is_noted(fluid, folder, tmp_path):
    """Compressed pictures, few pictures, and numbers that differ between the sides."""
    generated, real = folder("generated", ending=".jpg"), folder("real", count=30, seed=1)
    arguments = ("--images", generated, "--real", real, "--precision-recall", "--out", tmp_path / "out")
    code, _, err = fluid("evaluate", "fid", *arguments, "--network", "random-convolutions")
    assert code == 0, err
    record = read_result(tmp_path / "out" / "frechet-distance.json")
    for words in ("JPEG", "no more pictures than features", "sets of different sizes"):
        assert any(words in note for note in record.notes), words
        assert words in err


def test_features_of_changed_pictures_are_not_reused(fluid, folder, tmp_path):
    """After a picture was replaced, the folder of results is refused."""
    same = folder("same")
    arguments = ("evaluate", "fid", "--images", same, "--real", same, "--out", tmp_path / "out", *NETWORK)
    assert fluid(*arguments)[0] == 0
    Image.new("RGB", (32, 32)).save(same / "003.png")
    code, _, err = fluid(*arguments)
    assert code == 1
    assert "fingerprint" in err


def test_real_pictures_of_the_captions_alone(fluid, folder, saved_model, tmp_path):
    """--only-captioned compares with the pictures that the manifest names."""
    real = folder("real", count=9)
    lines = [f'{{"prompt": "noise {index}", "file_name": "{index:03d}.png"}}\n' for index in (7, 2, 5, 0)]
    (tmp_path / "captions.jsonl").write_text("".join(lines))
    arguments = ("evaluate", "fid", saved_model, "--captions", tmp_path / "captions.jsonl", "--real", real)
    arguments += ("--resolution", 32, "--steps", 1, *NETWORK)
    code, _, err = fluid(*arguments, "--only-captioned", "--out", tmp_path / "out")
    assert code == 0, err
    record = read_result(tmp_path / "out" / "frechet-distance.json")
    assert (record.num_images, record.settings["real"]["num_images"]) == (4, 4)
    assert record.settings["real"]["num_in_folder"] == 9
    assert record.settings["captions"]["num_used"] == 4
    code, _, err = fluid(*arguments, "--num-images", 5, "--out", tmp_path / "more")
    assert code == 1
    assert "at least 5 captions" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--images", "pictures", "--real", "pictures"), "feature network"),
        ((*NETWORK, "--real", "pictures"), "--images"),
        ((*NETWORK, "--images", "pictures"), "--data NAME"),
        ((*NETWORK, "--images", "pictures", "--real", "pictures", "--reference", "ref"), "found 2"),
        ((*NETWORK, "--images", "nowhere", "--real", "pictures"), "nowhere"),
        (("--inception", "nowhere.pt", "--images", "pictures", "--real", "pictures"), "nowhere.pt"),
        ((*NETWORK, "--images", "pictures", "--real", "pictures", "--num-images", "99"), "at least 99"),
    ],
)
def test_mistakes_end_with_a_message(arguments, message, fluid, folder):
    """What is missing or too much is named, with the option that mends it."""
    folder("pictures", count=4)
    code, _, err = fluid("evaluate", "fid", *arguments)
    assert code == 1
    assert message in err


@pytest.mark.slow
def test_two_processes_find_what_one_does(fluid, fluid_in_processes, saved_model, tmp_path):
    """Pictures and features are the same to the byte, and so are the figures."""
    arguments = ("evaluate", "fid", saved_model, "--data", "shapes", "--num-images", 10, "--steps", 2, *NETWORK)
    arguments += ("--resolution", 32, "--batch-size", 3)
    code, _, err = fluid(*arguments, "--out", tmp_path / "one")
    assert code == 0, err
    done = fluid_in_processes(2, *arguments, "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Frechet distance in") == 1
    one, two = (read_result(tmp_path / name / "frechet-distance.json") for name in ("one", "two"))
    assert one.values == two.values
    assert one.settings == two.settings
