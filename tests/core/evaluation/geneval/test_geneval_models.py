"""The detector and the judge of colours: their rules on made-up outputs, and tiny models from disk."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from fluid_core.errors import CheckpointError
from fluid_core.evaluation.clip_model import ClipModel
from fluid_core.evaluation.geneval.color_judge import ColorJudge, object_crop
from fluid_core.evaluation.geneval.detector import Mask2FormerDetector, instances
from fluid_core.evaluation.geneval.scoring import Detection, JudgeSettings
from fluid_core.evaluation.geneval.words import COLORS, OBJECT_NAMES

CPU = torch.device("cpu")


def output(*queries, size=16):
    """Logits of queries, each with probabilities of classes by name and a mask, as (rows, columns, probability)."""
    classes = torch.full((len(queries), len(OBJECT_NAMES) + 1), -30.0)
    masks = torch.full((len(queries), size, size), -12.0)
    for number, (chances, (rows, columns, inside)) in enumerate(queries):
        rest = 1 - sum(chances.values())
        classes[number, -1] = np.log(max(rest, 1e-12))
        for name, chance in chances.items():
            classes[number, OBJECT_NAMES.index(name)] = np.log(chance)
        masks[number, slice(*rows), slice(*columns)] = float(np.log(inside / (1 - inside)))
    return classes, masks


def test_instances_are_read_from_queries():
    """Score: probability of the class times the mean within the mask. Box: around the mask, in the picture's pixels."""
    classes, masks = output(
        ({"dog": 0.8, "cat": 0.15}, ((4, 8), (2, 10), 0.9)),
        ({"cup": 0.5}, ((0, 16), (12, 16), 0.6)),
        ({"tie": 0.01}, ((0, 4), (0, 4), 0.9)),
        ({"bed": 0.9}, ((0, 0), (0, 0), 0.9)),
    )
    found = instances(classes, masks, seen_size=(16, 16), size=(16, 16))
    assert [one.class_name for one in found] == ["dog", "cup", "cat"]
    assert [one.score for one in found] == pytest.approx([0.8 * 0.9, 0.5 * 0.6, 0.15 * 0.9], rel=1e-4)
    # One query stands for two classes, with one mask.
    assert found[0].box == found[2].box == (2.0, 4.0, 10.0, 8.0)
    assert found[0].mask.sum() == 32
    assert found[1].box == (12.0, 0.0, 16.0, 16.0)


def test_instances_have_the_size_of_the_picture():
    """Masks are enlarged to what the network saw, then to the picture, here twice as wide as high."""
    classes, masks = output(({"dog": 0.9}, ((4, 12), (4, 12), 0.99)))
    (found,) = instances(classes, masks, seen_size=(64, 64), size=(40, 80))
    assert found.mask.shape == (40, 80)
    left, top, right, bottom = found.box
    assert (left, right) == (pytest.approx(20, abs=4), pytest.approx(60, abs=4))
    assert (top, bottom) == (pytest.approx(10, abs=2), pytest.approx(30, abs=2))


def test_at_most_a_hundred_instances():
    """The surest hundred of all queries and classes."""
    chances = dict.fromkeys(OBJECT_NAMES[:10], 0.0999)
    classes, masks = output(*[(chances, ((0, 4), (0, 4), 0.9))] * 12)
    assert len(instances(classes, masks, seen_size=(16, 16), size=(16, 16))) == 100


def test_the_detector_loads_from_a_folder(detector):
    """A saved model finds something in noise; what it finds depends on the picture and not on its company."""
    loaded = Mask2FormerDetector(detector, CPU)
    noise = np.random.default_rng(0).integers(0, 255, (2, 48, 48, 3), dtype=np.uint8)
    pictures = [Image.fromarray(one) for one in noise]
    together = loaded.detect(pictures)
    for picture, found in zip(pictures, together, strict=True):
        (alone,) = loaded.detect([picture])
        assert [one.class_name for one in alone] == [one.class_name for one in found]
        assert [one.score for one in alone] == pytest.approx([one.score for one in found], rel=1e-3)
        for one in found:
            assert one.mask.shape == (48, 48)
            assert 0 <= one.box[0] < one.box[2] <= 48
    assert any(together)
    mixed = loaded.detect([pictures[0], pictures[1].resize((60, 40))])
    assert [one.class_name for one in mixed[0]] == [one.class_name for one in together[0]]
    assert loaded.detect([]) == []


def test_other_classes_are_refused(detector, tmp_path):
    """A panoptic detector, or one whose classes stand in another order, would be judged wrongly without a word."""
    folder = tmp_path / "detector"
    shutil.copytree(detector, folder)
    config = json.loads((folder / "config.json").read_text())
    labels = config["id2label"]
    config["id2label"] = {**labels, "3": labels["4"], "4": labels["3"]}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"class 3 .* to be 'motorcycle', found 'airplane'"):
        Mask2FormerDetector(folder, CPU)


def test_missing_models_are_named(detector, clip, tmp_path):
    """Nothing is downloaded and nothing made up: messages say what to fetch, and what is wrong with what is there."""
    with pytest.raises(CheckpointError, match="hf download facebook/mask2former-swin-small-coco-instance"):
        Mask2FormerDetector(tmp_path / "none", CPU)
    with pytest.raises(CheckpointError, match=r"openai/clip-vit-large-patch14.*pass its folder"):
        ClipModel(tmp_path, CPU)
    with pytest.raises(CheckpointError, match="model_type 'clip'"):
        ClipModel(detector, CPU)
    for name, message in (("model.safetensors", "weights in safetensors"), ("preprocessor_config.json", "preparation")):
        folder = tmp_path / name
        shutil.copytree(clip, folder)
        (folder / name).unlink()
        with pytest.raises(CheckpointError, match=message):
            ClipModel(folder, CPU)


def test_clip_vectors_are_what_transformers_computes(clip):
    """Unit vectors of the projected features, alone or in company of longer texts."""
    from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTokenizer

    loaded, plain = ClipModel(clip, CPU), CLIPModel.from_pretrained(clip).eval()
    tokenizer, prepare = CLIPTokenizer.from_pretrained(clip), CLIPImageProcessorPil.from_pretrained(clip)
    texts = ["a photo of a dog", "a photo of a green-colored thing"]
    picture = Image.effect_noise((30, 20), 90).convert("RGB")
    found = loaded.texts(texts)
    assert found.norm(dim=1) == pytest.approx([1, 1])
    with torch.no_grad():
        alone = plain(
            **tokenizer(texts[0], return_tensors="pt"),
            **prepare(images=[picture], return_tensors="pt"),
            return_dict=True,
        )
    torch.testing.assert_close(found[:1], alone.text_embeds)
    torch.testing.assert_close(loaded.pictures([picture]), alone.image_embeds)
    assert loaded.width == 12


def test_colors_follow_the_mean_of_the_descriptions(clip):
    """Three descriptions per colour, each a unit vector; their mean, made a unit vector, is compared."""
    loaded = ClipModel(clip, CPU)
    judge = ColorJudge(loaded, JudgeSettings())
    rows = judge.descriptions("cup")
    assert rows.shape == (len(COLORS), 12)
    texts = ["a photo of a pink cup", "a photo of a pink-colored cup", "a photo of a pink object"]
    mean = functional.normalize(loaded.texts(texts).mean(dim=0), dim=0)
    torch.testing.assert_close(rows[COLORS.index("pink")], mean)
    picture = Image.effect_noise((40, 40), 90).convert("RGB")
    detections = [Detection(class_name="cup", box=(0, 0, 20, 20), score=1.0)] * 2
    found = judge.in_picture(picture)(detections, "cup")
    likeness = loaded.pictures([picture.crop((0, 0, 20, 20))]) @ rows.T
    assert found == [COLORS[int(likeness.argmax())]] * 2


def test_crops_show_the_object_before_grey():
    """Outside the mask all is grey; the crop is the box. Without a mask, or on request, the surroundings stay."""
    picture = Image.new("RGB", (20, 20), "red")
    mask = np.zeros((20, 20), dtype=bool)
    mask[5:10, 5:15] = True
    detection = Detection(class_name="cup", box=(4.6, 5.0, 15.0, 12.0), score=1.0, mask=mask)
    crop = np.asarray(object_crop(picture, detection, JudgeSettings()))
    assert crop.shape == (7, 10, 3)
    assert (crop[:5] == (255, 0, 0)).all()
    assert (crop[5:] == (0x99, 0x99, 0x99)).all()
    kept = np.asarray(object_crop(picture, detection, JudgeSettings(background="original")))
    assert (kept == (255, 0, 0)).all()
    whole = object_crop(picture, detection, JudgeSettings(crop=False))
    assert whole.size == (20, 20)
    assert whole.getpixel((0, 0)) == (0x99, 0x99, 0x99)
