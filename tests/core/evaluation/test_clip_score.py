"""The CLIP score: against the logits of CLIP itself, and what the command says about it."""

import pytest
import torch
from PIL import Image

from fluid_core.errors import InvalidRequestError
from fluid_core.evaluation.clip_model import ClipModel
from fluid_core.evaluation.clip_score import caption_cosines, clip_scores
from fluid_core.evaluation.result_file import read_result

CAPTIONS = ["a red circle", "two blue squares above a star", "green"]


@pytest.fixture
def pictures():
    """Three pictures of different colours and sizes."""
    return [Image.new("RGB", (20 + 9 * index, 30), (80 * index, 200, 90)) for index in range(3)]


@pytest.fixture
def folder(pictures, tmp_path):
    """The pictures in a folder, and a file of their captions."""
    (tmp_path / "pictures").mkdir()
    for index, picture in enumerate(pictures):
        picture.save(tmp_path / "pictures" / f"{index}.png")
    (tmp_path / "captions.txt").write_text("\n".join(CAPTIONS))
    return tmp_path / "pictures"


def test_cosines_are_those_of_clip(clip, pictures):
    """They are the logits that CLIP computes in one pass, without its temperature."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    found = caption_cosines(ClipModel(clip, torch.device("cpu")), pictures, CAPTIONS)
    model = CLIPModel.from_pretrained(clip).eval()
    words = CLIPTokenizer.from_pretrained(clip)(CAPTIONS, padding=True, return_tensors="pt")
    pixels = CLIPImageProcessorPil.from_pretrained(clip)(images=pictures, return_tensors="pt")
    with torch.no_grad():
        logits = model(
            input_ids=words["input_ids"], attention_mask=words["attention_mask"], pixel_values=pixels["pixel_values"]
        ).logits_per_image
    expected = logits.diagonal() / model.logit_scale.exp().detach()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert len(set(found.tolist())) == 3


def test_scores_are_never_negative():
    """100 max(cos, 0), for each picture before the mean is taken."""
    assert clip_scores(torch.tensor([0.25, -0.5, 1.0])).tolist() == [25.0, 0.0, 100.0]


def test_each_picture_needs_a_caption(clip, pictures):
    """Other numbers are refused."""
    with pytest.raises(InvalidRequestError, match="3 pictures and 2 captions"):
        caption_cosines(ClipModel(clip, torch.device("cpu")), pictures, CAPTIONS[:2])


def test_the_command_scores_a_folder(fluid, clip, folder, pictures, tmp_path):
    """The record holds mean and prefix, and the score is that of the captions with it."""
    arguments = ("evaluate", "clip-score", "--images", folder, "--captions", tmp_path / "captions.txt")
    arguments += ("--clip", clip, "--device", "cpu", "--batch-size", 2)
    code, out, err = fluid(*arguments, "--out", tmp_path / "plain")
    assert code == 0, err
    plain = read_result(tmp_path / "plain" / "clip-score.json")
    model = ClipModel(clip, torch.device("cpu"))
    cosines = caption_cosines(model, pictures, CAPTIONS)
    assert plain.values["mean_cosine"] == pytest.approx(float(cosines.mean()), abs=1e-5)
    assert plain.values["clip_score"] == pytest.approx(float(clip_scores(cosines).mean()), abs=1e-3)
    assert f"mean cosine {plain.values['mean_cosine']:.4f}" in out
    assert (plain.num_images, plain.model, plain.settings["num_truncated"]) == (3, None, 0)

    code, _, err = fluid(*arguments, "--prefix", "a photo depicts", "--out", tmp_path / "prefix")
    assert code == 0, err
    prefixed = read_result(tmp_path / "prefix" / "clip-score.json")
    expected = caption_cosines(model, pictures, [f"a photo depicts {caption}" for caption in CAPTIONS])
    assert prefixed.values["mean_cosine"] == pytest.approx(float(expected.mean()), abs=1e-5)
    assert prefixed.settings["prefix"] == "a photo depicts"
    assert prefixed.settings["texts_sha256"] != plain.settings["texts_sha256"]


def test_long_captions_are_counted(fluid, clip, folder, tmp_path):
    """CLIP reads the beginning alone of a long caption, which the record says."""
    (tmp_path / "captions.txt").write_text("\n".join(["a", "a long " * 30, "b"]))
    arguments = ("evaluate", "clip-score", "--images", folder, "--captions", tmp_path / "captions.txt", "--clip", clip)
    code, _, err = fluid(*arguments, "--out", tmp_path / "out", "--device", "cpu")
    assert code == 0, err
    record = read_result(tmp_path / "out" / "clip-score.json")
    assert record.settings["num_truncated"] == 1
    assert any("cut to 64 tokens: 1." in note for note in record.notes)


def test_pictures_of_fluid_tell_their_prompts(fluid, clip, saved_model, tmp_path):
    """A folder of `fluid sample` needs no captions, and its record names the model that drew it."""
    code, _, err = fluid("sample", saved_model, "a red star", "a blue one", "--out", tmp_path / "s", "--seed", 4)
    assert code == 0, err
    code, _, err = fluid("evaluate", "clip-score", "--images", tmp_path / "s", "--clip", clip, "--out", tmp_path / "o")
    assert code == 0, err
    record = read_result(tmp_path / "o" / "clip-score.json")
    assert (record.model.folder, record.model.weights, record.seeds["sampling"]) == ("tiny", "ema", 4)
    assert (record.num_images, record.settings["sampling"]["settings"]["guidance"]) == (2, 1.0)
    (tmp_path / "wrong.txt").write_text("a red star\na green one\n")
    arguments = ("--images", tmp_path / "s", "--captions", tmp_path / "wrong.txt", "--out", tmp_path / "o2")
    code, _, err = fluid("evaluate", "clip-score", *arguments, "--clip", clip)
    assert code == 1
    assert "'a blue one'" in err


def test_what_is_missing_is_named(fluid, clip, folder, tmp_path):
    """Pictures without captions, a folder without CLIP, nothing to judge."""
    code, _, err = fluid("evaluate", "clip-score", "--images", folder, "--clip", clip)
    assert code == 1
    assert "--captions FILE" in err
    code, _, err = fluid("evaluate", "clip-score", "--images", folder, "--clip", tmp_path / "nowhere")
    assert code == 1
    assert "Nothing is downloaded" in err
    code, _, err = fluid("evaluate", "clip-score", "--clip", clip)
    assert code == 1
    assert "--images" in err
