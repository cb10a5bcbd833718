"""A folder of captioned pictures: items, splits, and an error for everything that can be wrong with it."""

import json

import pytest
import torch
from PIL import Image

from fluid_core.data.captioned_images import CaptionedImages, EpochVariants
from fluid_core.data.image_folder import ImageFolderDataset, build_image_folder, read_metadata
from fluid_core.data.options import ImageFolderOptions
from fluid_core.errors import ConfigurationError, DataError, ImageSizeError, MissingCaptionError, UnreadableImageError
from fluid_core.exchange import DatasetContext


def write_folder(folder, rows, num_pictures=None):
    """A folder with these metadata rows (objects, or lines as they are) and a picture for every file name."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    folder.mkdir(exist_ok=True)
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for number, row in enumerate(rows):
        name = row.get("file_name") if isinstance(row, dict) else None
        if isinstance(name, str) and ".." not in name and not name.startswith("/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 10), (number % 256, 100, 200)).save(folder / name)
    return folder


def numbered(count):
    """Rows for pictures 0000.png and so on, with the caption `picture 0` and so on."""
    return [{"file_name": f"{number:04d}.png", "text": f"picture {number}"} for number in range(count)]


def open_folder(folder, split="train", image_size=(8, 8), **options):
    """The data set of a folder."""
    return ImageFolderDataset(ImageFolderOptions(path=str(folder), **options), image_size, split)


def test_items_are_pictures_with_their_captions(tmp_path):
    """In the order of the metadata; subfolders, blank lines, further columns and a byte order mark are fine."""
    rows = [{"file_name": "a/b/one.png", "text": "eins ü", "source": "x"}, "", {"file_name": "two.png", "text": "zwei"}]
    folder = write_folder(tmp_path / "data", rows)
    metadata = folder / "metadata.jsonl"
    metadata.write_bytes(b"\xef\xbb\xbf" + metadata.read_bytes().replace(b"\n", b"\r\n"))
    context = DatasetContext(image_size=(6, 8), split="train", seed=0)
    dataset = build_image_folder(ImageFolderOptions(path=str(folder), validation_fraction=0.0), context)
    assert isinstance(dataset, CaptionedImages)
    assert [item.caption for item in dataset] == ["eins ü", "zwei"]
    assert dataset[1].image.shape == (3, 6, 8)
    color = torch.tensor([2, 100, 200]) / 127.5 - 1
    torch.testing.assert_close(dataset[1].image, color[:, None, None].expand(3, 6, 8))
    for index in (2, -1):
        with pytest.raises(IndexError, match="items 0 to 1"):
            dataset[index]


def test_a_list_of_captions_gives_another_each_epoch(tmp_path):
    """Every epoch draws one, about equally often; without lists nothing varies, and validation never does."""
    rows = [{"file_name": f"{i}.png", "text": ["a", "b", "c"]} for i in range(20)]
    folder = write_folder(tmp_path / "data", rows)
    dataset = open_folder(folder, validation_fraction=0.1)
    assert isinstance(dataset, EpochVariants)
    assert dataset.varies
    drawn = [dataset.variant(0, epoch=epoch).caption for epoch in range(300)]
    assert all(60 < drawn.count(caption) < 140 for caption in "abc")
    assert dataset[0].caption == drawn[0]
    validation = open_folder(folder, "validation", validation_fraction=0.1)
    assert not validation.varies
    assert len({validation.variant(0, epoch=epoch).caption for epoch in range(20)}) == 1
    assert not open_folder(write_folder(tmp_path / "plain", numbered(3))).varies


def test_captions_come_from_several_columns_by_probability(tmp_path):
    """Three in ten are short; a picture without a short one takes the long one; another seed draws others."""
    rows = [{"file_name": "one.png", "short": "s", "long": "l"}, {"file_name": "two.png", "long": "l2"}]
    folder = write_folder(tmp_path / "data", rows)
    shares = {"captions": {"short": 0.3, "long": 0.7}, "validation_fraction": 0.0}
    dataset = open_folder(folder, **shares)
    drawn = [dataset.variant(0, epoch=epoch).caption for epoch in range(1000)]
    assert drawn.count("s") + drawn.count("l") == 1000
    assert 250 < drawn.count("s") < 350
    assert {dataset.variant(1, epoch=epoch).caption for epoch in range(20)} == {"l2"}
    again, other = open_folder(folder, **shares), ImageFolderDataset(dataset.options, (8, 8), "train", seed=1)
    assert [again.variant(0, epoch=epoch).caption for epoch in range(50)] == drawn[:50]
    assert [other.variant(0, epoch=epoch).caption for epoch in range(50)] != drawn[:50]


def test_random_crops_move_with_the_epoch(tmp_path):
    """Crops of a wide gradient begin anywhere, as seed, epoch and index say; captions stay; validation is centred."""
    folder = write_folder(tmp_path / "data", numbered(2))
    gradient = Image.linear_gradient("L").rotate(90).resize((64, 16))
    for number in range(2):
        gradient.save(folder / f"{number:04d}.png")
    options = {"crop": "random", "validation_fraction": 0.5}
    train, validation = (open_folder(folder, split, (16, 16), **options) for split in ("train", "validation"))
    means = [float(train.variant(0, epoch=epoch).image.mean()) for epoch in range(40)]
    assert max(means) - min(means) > 0.9
    assert [float(open_folder(folder, "train", (16, 16), **options)[0].image.mean())] == means[:1]
    assert len({train.variant(0, epoch=epoch).caption for epoch in range(5)}) == 1
    centred = open_folder(folder, "validation", (16, 16), validation_fraction=0.5)
    assert torch.equal(validation.variant(0, epoch=7).image, centred[0].image)
    assert not validation.varies


def test_small_and_giant_pictures_are_left_out(tmp_path):
    """The message tells the size; the header is enough to know it."""
    folder = write_folder(tmp_path / "data", numbered(1))
    with pytest.raises(ImageSizeError, match=r"20 x 10 pixels; its shorter side must have 11"):
        open_folder(folder, min_image_size=11)[0]
    with pytest.raises(ImageSizeError, match=r"20 x 10 pixels, which is more than 199"):
        open_folder(folder, max_pixels=199)[0]
    assert open_folder(folder, min_image_size=10, max_pixels=200)[0].caption == "picture 0"


def test_mirrored_copies_are_items_of_their_own(tmp_path):
    """With horizontal_flip the training split is twice as long; the validation split stays as it is."""
    folder = write_folder(tmp_path / "data", numbered(30))
    for number in range(30):
        picture = Image.new("RGB", (8, 8), "white")
        picture.paste((number, 0, 0), (0, 0, 4, 8))
        picture.save(folder / f"{number:04d}.png")
    plain, mirrored = (open_folder(folder, horizontal_flip=flip) for flip in (False, True))
    assert len(mirrored) == 2 * len(plain)
    for index in range(len(plain)):
        copy = mirrored[index + len(plain)]
        assert torch.equal(mirrored[index].image, plain[index].image)
        assert torch.equal(copy.image, plain[index].image.flip(-1))
        assert not torch.equal(copy.image, plain[index].image)
        assert copy.caption == plain[index].caption
    validation = open_folder(folder, "validation", horizontal_flip=True)
    assert len(validation) + len(plain) == 30


def test_splits_are_disjoint_complete_and_stable(tmp_path):
    """Every picture is in one split, about the wanted share in validation; new pictures move no old one."""
    small = write_folder(tmp_path / "small", numbered(300))
    large = write_folder(tmp_path / "large", numbered(400)[::-1])

    def captions(folder, split):
        dataset = open_folder(folder, split, validation_fraction=0.2)
        return {dataset[index].caption for index in range(len(dataset))}

    train, validation = captions(small, "train"), captions(small, "validation")
    assert not train & validation
    assert len(train | validation) == 300
    assert 35 < len(validation) < 85
    assert train < captions(large, "train")
    assert validation < captions(large, "validation")


@pytest.mark.parametrize("fraction", [1e-9, 0.05, 0.999999])
def test_no_split_of_a_small_folder_is_empty(tmp_path, fraction):
    """Two pictures are enough for both splits, whatever their names hash to."""
    folder = write_folder(tmp_path / "data", numbered(2))
    sizes = [len(open_folder(folder, split, validation_fraction=fraction)) for split in ("train", "validation")]
    assert sizes == [1, 1]


def test_impossible_splits_are_refused(tmp_path):
    """A single picture, a fraction of 0 and an unknown split each have their message."""
    folder = write_folder(tmp_path / "data", numbered(1))
    assert len(open_folder(folder, "train")) == 1
    with pytest.raises(ConfigurationError, match="at least two pictures, found one"):
        open_folder(folder, "validation")
    with pytest.raises(ConfigurationError, match=r"validation_fraction is 0\. Set it above 0"):
        open_folder(folder, "validation", validation_fraction=0.0)
    with pytest.raises(ConfigurationError, match="found 'test'"):
        open_folder(folder, "test")


def test_a_damaged_picture_is_reported_when_it_is_read(tmp_path):
    """The folder opens; only the item itself raises, naming the file, and the others are whole."""
    folder = write_folder(tmp_path / "data", numbered(3))
    whole = (folder / "0001.png").read_bytes()
    (folder / "0001.png").write_bytes(whole[: len(whole) // 2])
    dataset = open_folder(folder, validation_fraction=0.0)
    with pytest.raises(UnreadableImageError, match=r"0001\.png"):
        dataset[1]
    assert dataset[2].caption == "picture 2"


def test_missing_folder_and_metadata(tmp_path):
    """Each message names the path that was looked at and what to do."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "metadata.csv").write_text("file_name,text\n")
    write_folder(tmp_path / "deeper", [])
    write_folder(tmp_path / "deeper" / "train", numbered(1))
    (tmp_path / "deeper" / "metadata.jsonl").unlink()
    for name, problem in (
        ("nowhere", "nowhere, found nothing. Check the option 'path'"),
        ("file", "file, found a file. Check the option 'path'"),
        ("empty", 'found none. Write the captions there, one JSON object per line, such as {"file_name": "0001.png"'),
        ("csv", "There is a metadata.csv; only metadata.jsonl is read"),
        ("deeper", "There is one in train: set the option 'path' to that folder"),
    ):
        with pytest.raises(DataError) as raised:
            open_folder(tmp_path / name)
        assert problem in str(raised.value)
        assert str(tmp_path / name) in str(raised.value)


GOOD = {"file_name": "good.png", "text": "good"}


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ('{"file_name": "x.png"', "line 2: not valid JSON (Expecting"),
        ("[" * 100_000, "line 2: not valid JSON"),
        ("9" * 5000, "line 2: not valid JSON"),
        ("[1, 2]", "line 2: expected a JSON object, found list"),
        ({"text": "a"}, "expected a column 'file_name', found text"),
        ({"file_name": 3, "text": "a"}, "expected the name of a picture in 'file_name', found 3"),
        ('{"file_name": "gone.png", "text": "a"}', "the picture 'gone.png' does not exist in"),
        ('{"file_name": ".", "text": "a"}', "the picture '.' does not exist in"),
        ('{"file_name": "\\ud83d.png", "text": "a"}', "does not exist in"),
        ({"file_name": "../outside.png", "text": "a"}, "the picture '../outside.png' lies outside the folder"),
        ({"file_name": "a/../../outside.png", "text": "a"}, "lies outside the folder"),
        ({"file_name": "/etc/outside.png", "text": "a"}, "lies outside the folder"),
        ({"file_name": "..\\outside.png", "text": "a"}, "lies outside the folder"),
        ('{"file_name": "C:\\\\outside.png", "text": "a"}', "lies outside the folder"),
    ],
)
def test_bad_lines_are_named(tmp_path, row, problem):
    """The message names the file and the line and says what is wrong with it."""
    (tmp_path / "outside.png").write_bytes(b"")
    folder = write_folder(tmp_path / "data", [GOOD, row])
    with pytest.raises(DataError) as raised:
        open_folder(folder)
    assert problem in str(raised.value)
    assert "line 2" in str(raised.value)
    assert str(folder / "metadata.jsonl") in str(raised.value)


@pytest.mark.parametrize(
    "row",
    [
        {"file_name": "x.png"},
        {"file_name": "x.png", "text": None},
        {"file_name": "x.png", "text": 3},
        {"file_name": "x.png", "text": ""},
        {"file_name": "x.png", "text": "  \t"},
        {"file_name": "x.png", "text": []},
        {"file_name": "x.png", "text": ["", None]},
        '{"file_name": "good.png", "text": "\\ud83d"}',
    ],
)
def test_a_picture_without_a_caption_is_reported_when_it_is_read(tmp_path, row):
    """One line among others stops nothing: the item raises, naming the picture and what was found."""
    dataset = open_folder(write_folder(tmp_path / "data", [GOOD, row]), validation_fraction=0.0)
    assert dataset[0].caption == "good"
    with pytest.raises(MissingCaptionError, match=r"(x|good)\.png has no caption: expected a text, found 'text': "):
        dataset[1]


def test_a_folder_without_any_caption_is_refused(tmp_path):
    """A misspelt column is told at once, with the columns there are."""
    folder = write_folder(tmp_path / "data", [{"file_name": "x.png", "caption": "a", "id": 1}])
    with pytest.raises(
        DataError, match=r"Expected a column 'text' in .*, found caption, file_name, id\. Set the option"
    ):
        open_folder(folder)
    folder = write_folder(tmp_path / "other", [{"file_name": "x.png", "text": ""}])
    with pytest.raises(DataError, match=r"found no text in any of its 1 lines"):
        open_folder(folder)


def test_many_bad_lines_are_shortened(tmp_path):
    """The first five are shown and the rest counted, so that one look is enough."""
    folder = write_folder(tmp_path / "data", [GOOD, *(["{"] * 12)])
    with pytest.raises(DataError, match=r"Found 12 bad line\(s\)") as raised:
        open_folder(folder)
    assert str(raised.value).count("not valid JSON") == 5
    assert str(raised.value).endswith("and 7 more lines")


def test_empty_and_foreign_metadata(tmp_path):
    """An empty file and one that is no UTF-8 text are told apart."""
    folder = write_folder(tmp_path / "data", [])
    with pytest.raises(DataError, match="found an empty file"):
        read_metadata(folder, ("text",))
    (folder / "metadata.jsonl").write_bytes('{"text": "ü"}'.encode("latin-1"))
    with pytest.raises(DataError, match="to be UTF-8 text"):
        read_metadata(folder, ("text",))


def test_separators_inside_captions_do_not_end_a_line(tmp_path):
    """JSON lets a caption hold U+2028, which Python's splitlines would break at."""
    folder = write_folder(tmp_path / "data", [GOOD])
    line = json.dumps({"file_name": "good.png", "text": "one\u2028two"}, ensure_ascii=False)
    (folder / "metadata.jsonl").write_text(line, encoding="utf-8")
    assert read_metadata(folder, ("text",))[0].captions == {"text": "one\u2028two"}
