"""Files of captions: chosen from the official annotations by seed, and known by their hash."""

import hashlib
import json

import pytest

from fluid_core.errors import DataError, InvalidRequestError
from fluid_core.evaluation.captions_manifest import describe_captions, write_captions_manifest
from fluid_core.sampling_run.prompts_file import read_prompts

NUM_IMAGES, NUM_EACH = 40, 5


@pytest.fixture
def annotations(tmp_path):
    """Annotations in the format of COCO: five captions for each of forty images."""
    document = {
        "info": {"year": 2014},
        "images": [{"id": 1000 + image, "file_name": f"COCO_{image:06d}.jpg"} for image in range(NUM_IMAGES)],
        "annotations": [
            {"id": image * NUM_EACH + one, "image_id": 1000 + image, "caption": f"A caption {one} of\n {image}. "}
            for one in range(NUM_EACH)
            for image in range(NUM_IMAGES)
        ],
    }
    path = tmp_path / "captions_val2014.json"
    path.write_text(json.dumps(document))
    return path


def rows(path):
    """What the lines of a manifest hold."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_different_images_with_one_caption_each(annotations, tmp_path):
    """The rule `images`: no image twice, its own caption and file name, white space put right, all captions met."""
    written = write_captions_manifest(annotations, tmp_path / "some.jsonl", num_captions=NUM_IMAGES)
    found = rows(written.file)
    assert len({row["image_id"] for row in found}) == NUM_IMAGES
    for row in found:
        image = row["image_id"] - 1000
        assert row["file_name"] == f"COCO_{image:06d}.jpg"
        assert row["prompt"] == f"A caption {row['caption_id'] % NUM_EACH} of {image}."
    assert {row["caption_id"] % NUM_EACH for row in found} == set(range(NUM_EACH))
    assert [row["image_id"] for row in found] != sorted(row["image_id"] for row in found)


def test_the_choice_follows_from_the_seed(annotations, tmp_path):
    """The same bytes again, a beginning for a smaller number, others for another seed."""
    one, again, fewer, other = (
        write_captions_manifest(annotations, tmp_path / f"{name}.jsonl", num_captions=count, seed=seed)
        for name, count, seed in (("one", 20, 0), ("again", 20, 0), ("fewer", 8, 0), ("other", 20, 1))
    )
    assert one.sha256 == again.sha256 != other.sha256
    assert rows(one.file)[:8] == rows(fewer.file)


def test_captions_may_share_an_image(annotations, tmp_path):
    """The rule `captions`: no caption twice, images as it comes."""
    written = write_captions_manifest(annotations, tmp_path / "all.jsonl", num_captions=200, rule="captions")
    found = rows(written.file)
    assert {row["caption_id"] for row in found} == set(range(200))
    few = rows(write_captions_manifest(annotations, tmp_path / "few.jsonl", num_captions=60, rule="captions").file)
    assert found[:60] == few
    assert len({row["image_id"] for row in few}) < 60


def test_the_choice_is_the_same_everywhere(annotations, tmp_path):
    """A recorded hash: neither Python's nor torch's random numbers have a say."""
    written = write_captions_manifest(annotations, tmp_path / "one.jsonl", num_captions=10, seed=42)
    assert written.sha256 == "cf38bf67ec713d34df9f2131218a73804fbac99a673f5b87c19bf3ee80d87a95"


def test_a_manifest_is_a_file_of_prompts(annotations, tmp_path):
    """`fluid sample` draws for it, and records know its hash and how it was made."""
    written = write_captions_manifest(annotations, tmp_path / "some.jsonl", num_captions=3, seed=9)
    prompts = read_prompts(written.file)
    assert [prompt.text for prompt in prompts] == [row["prompt"] for row in rows(written.file)]
    assert prompts[0].metadata["file_name"].startswith("COCO_")
    described = describe_captions(written.file)
    assert described["sha256"] == hashlib.sha256(written.file.read_bytes()).hexdigest() == written.sha256
    assert described["made_from"] == json.loads(written.file.with_suffix(".json").read_text())
    assert described["made_from"]["annotations_sha256"] == hashlib.sha256(annotations.read_bytes()).hexdigest()
    assert described["made_from"]["seed"] == 9
    written.file.write_text(written.file.read_text() + '{"prompt": "one more"}\n')
    assert describe_captions(written.file)["made_from"] is None, "a description of another file is no description"


@pytest.mark.parametrize(
    "content",
    [
        "no JSON",
        "{}",
        '{"images": [], "annotations": [{"id": 1, "image_id": 2, "caption": "a"}]}',
        '{"images": [{"id": 2, "file_name": "x.jpg"}], "annotations": [{"id": 1, "image_id": 2, "caption": " "}]}',
        '{"images": [{"id": 2}], "annotations": []}',
    ],
)
def test_other_files_are_refused(content, tmp_path):
    """The message says what an official file looks like."""
    (tmp_path / "wrong.json").write_text(content)
    with pytest.raises(DataError, match=r"captions_val2014\.json"):
        write_captions_manifest(tmp_path / "wrong.json", tmp_path / "out.jsonl", num_captions=1)
    assert not (tmp_path / "out.jsonl").exists()


def test_more_captions_than_there_are(annotations, tmp_path):
    """The message says how many there are; a name that hides the format is refused as well."""
    with pytest.raises(InvalidRequestError, match="at most 40 captions"):
        write_captions_manifest(annotations, tmp_path / "some.jsonl", num_captions=41)
    with pytest.raises(InvalidRequestError, match=r"ends in \.jsonl"):
        write_captions_manifest(annotations, tmp_path / "some.json", num_captions=4)


def test_the_command_prints_the_hash(annotations, fluid, tmp_path):
    """`fluid evaluate captions` writes the file and says its SHA-256."""
    code, out, err = fluid("evaluate", "captions", annotations, "--out", tmp_path / "c.jsonl", "--count", 7)
    assert code == 0, err
    assert hashlib.sha256((tmp_path / "c.jsonl").read_bytes()).hexdigest() in out
