"""Hugging Face datasets: Parquet, Arrow, JSON and folders on disk, with random access and streamed."""

import io
import json

import pytest
import torch
from PIL import Image

from fluid_core.catalog import installed_components
from fluid_core.data.captioned_images import CaptionedImages, CaptionedStream, EpochVariants
from fluid_core.data.hugging_face import HuggingFaceImages, HuggingFaceStream, build_hugging_face_dataset
from fluid_core.data.open_batches import open_batches
from fluid_core.data.options import HuggingFaceDatasetOptions
from fluid_core.errors import (
    ConfigurationError,
    DamagedShardError,
    DataError,
    MissingCaptionError,
    UnreadableImageError,
)
from fluid_core.exchange import DatasetContext
from fluid_core.testing import DatasetSuite

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _quiet():
    datasets.disable_progress_bars()


def encoded(color, size=(20, 10)):
    """The bytes of a picture of one colour."""
    content = io.BytesIO()
    Image.new("RGB", size, color).save(content, "PNG")
    return content.getvalue()


def table(first, count, *, pictures=None, **columns):
    """A data set in memory of numbered pictures and captions, and further columns."""
    rows = range(first, first + count)
    content = {
        "image": pictures or [{"bytes": encoded((row, 100, 200)), "path": None} for row in rows],
        "text": [f"picture {row}" for row in rows],
        **columns,
    }
    return datasets.Dataset.from_dict(content).cast_column("image", datasets.Image())


def write_parquet(folder, num_files=3, per_file=4):
    """Parquet files with numbered pictures, and the pattern that matches them."""
    folder.mkdir(exist_ok=True)
    for file in range(num_files):
        table(file * per_file, per_file).to_parquet(str(folder / f"part-{file}.parquet"))
    return folder


@pytest.fixture
def open_dataset(tmp_path):
    """A function that opens a data set with a cache of its own; all rows are for training unless said otherwise."""

    def open_it(path, split="train", image_size=(8, 8), seed=0, **options):
        options = {"validation_fraction": 0.0, "cache_dir": str(tmp_path / "cache"), **options}
        built = build_hugging_face_dataset(
            HuggingFaceDatasetOptions(path=str(path), **options),
            DatasetContext(image_size=image_size, split=split, seed=seed),
        )
        assert isinstance(built, HuggingFaceStream if options.get("streaming") else HuggingFaceImages)
        return built

    return open_it


def captions(dataset):
    """All captions in the order of the data."""
    if isinstance(dataset, CaptionedStream):
        samples = (sample for shard in range(dataset.num_shards) for sample in dataset.samples(shard))
        return [dataset.item(sample, epoch=0).caption for sample in samples]
    return [dataset[index].caption for index in range(len(dataset))]


NUMBERED = [f"picture {row}" for row in range(12)]


@pytest.mark.parametrize("streaming", [False, True])
def test_parquet_files(tmp_path, open_dataset, streaming):
    """A folder, a pattern and a single file; streamed, every file is a shard."""
    folder = write_parquet(tmp_path / "data")
    dataset = open_dataset(folder, streaming=streaming, image_size=(6, 8))
    assert isinstance(dataset, CaptionedStream if streaming else CaptionedImages)
    assert captions(dataset) == NUMBERED
    item = dataset.item(next(dataset.samples(1)), epoch=0) if streaming else dataset[4]
    expected = torch.tensor([4, 100, 200]) / 127.5 - 1
    torch.testing.assert_close(item.image, expected[:, None, None].expand(3, 6, 8))
    assert captions(open_dataset("parquet", data_files=f"{folder}/part-*.parquet", streaming=streaming)) == NUMBERED
    assert captions(open_dataset(folder / "part-2.parquet", streaming=streaming)) == NUMBERED[8:]
    if streaming:
        assert dataset.num_shards == 3


@pytest.mark.parametrize("streaming", [False, True])
def test_what_save_to_disk_wrote(tmp_path, open_dataset, streaming):
    """A saved data set, and one split of a saved dictionary of them."""
    table(0, 12).save_to_disk(str(tmp_path / "saved"), num_shards=2)
    dataset = open_dataset(tmp_path / "saved", streaming=streaming)
    assert sorted(captions(dataset)) == sorted(NUMBERED)
    if streaming:
        assert dataset.num_shards == 2
    both = datasets.DatasetDict({"train": table(0, 4), "test": table(4, 3)})
    both.save_to_disk(str(tmp_path / "both"))
    options = {"streaming": streaming, "validation_split": "test"}
    assert captions(open_dataset(tmp_path / "both", **options)) == NUMBERED[:4]
    assert captions(open_dataset(tmp_path / "both", "validation", **options)) == NUMBERED[4:7]


@pytest.mark.parametrize("streaming", [False, True])
def test_json_with_names_of_pictures(tmp_path, open_dataset, streaming):
    """Names are relative to the folder or absolute."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = []
    for row in range(4):
        (folder / f"{row}.png").write_bytes(encoded((row, 0, 0)))
        name = f"{row}.png" if row % 2 else str(folder / f"{row}.png")
        lines.append(json.dumps({"picture": name, "words": f"picture {row}"}))
    (folder / "rows.jsonl").write_text("\n".join(lines))
    options = {"image_column": "picture", "caption_column": "words", "streaming": streaming}
    dataset = open_dataset(folder, data_files="rows.jsonl", **options)
    assert captions(dataset) == NUMBERED[:4]
    missing = open_dataset(folder, data_files="rows.jsonl", **options)
    (folder / "1.png").unlink()
    sample = list(missing.samples(0))[1] if streaming else None
    with pytest.raises(UnreadableImageError, match=r"of row .* of .*data: .*1\.png"):
        missing.item(sample, epoch=0) if streaming else missing[1]


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_that_can_not_be_used(tmp_path, open_dataset, streaming):
    """No picture, half a picture, no caption: each raises its error, which names the row; the others are whole."""
    whole = encoded((1, 2, 3))
    pictures = [{"bytes": b, "path": None} for b in (whole, whole[:45], None, whole)]
    table(0, 4, pictures=pictures, text=["a", "b", "c", None]).to_parquet(str(tmp_path / "x.parquet"))
    dataset = open_dataset(tmp_path / "x.parquet", streaming=streaming)
    samples = list(dataset.samples(0)) if streaming else range(4)

    def item(row):
        return dataset.item(samples[row], epoch=0) if streaming else dataset[row]

    assert item(0).caption == "a"
    with pytest.raises(UnreadableImageError, match=r"Could not read the picture of row (0/)?1 of .*x\.parquet"):
        item(1)
    with pytest.raises(UnreadableImageError, match=r"There is no picture in the column 'image' of row (0/)?2"):
        item(2)
    with pytest.raises(MissingCaptionError, match=r"row (0/)?3 of .* has no caption"):
        item(3)
    loader = open_batches(dataset, batch_size=3, seed=0)
    assert set(loader.batch(0).captions) == {"a"}
    assert sorted(one.kind for one in loader.skipped.listed.values())[0] == "no-caption"
    loader.close()


@pytest.mark.parametrize("streaming", [False, True])
def test_splits_by_hash(tmp_path, open_dataset, streaming):
    """Disjoint, complete and about the wanted share."""
    folder = write_parquet(tmp_path / "data", num_files=2, per_file=100)
    options = {"validation_fraction": 0.2, "streaming": streaming}
    train, validation = (set(captions(open_dataset(folder, split, **options))) for split in ("train", "validation"))
    assert not train & validation
    assert len(train | validation) == 200
    assert 20 < len(validation) < 60
    with pytest.raises(ConfigurationError, match="validation_fraction is 0"):
        open_dataset(folder, "validation", streaming=streaming)


def test_an_empty_split_is_told(tmp_path, open_dataset):
    """A fraction that leaves nothing is refused when the data set is opened."""
    with pytest.raises(DataError, match=r"The validation split of .* is empty: of 12 rows"):
        open_dataset(write_parquet(tmp_path / "data"), "validation", validation_fraction=1e-9)


@pytest.mark.parametrize("streaming", [False, True])
def test_lists_and_columns_of_captions_vary(tmp_path, open_dataset, streaming):
    """One of a list is drawn, columns by their probability; mirrored pictures are items, or drawn in streams."""
    lists = [["a", "b"]] * 4
    table(0, 4, text=lists, short=["s"] * 4).to_parquet(str(tmp_path / "x.parquet"))
    path = tmp_path / "x.parquet"

    def drawn(**options):
        dataset = open_dataset(path, streaming=streaming, **options)
        assert isinstance(dataset, CaptionedStream if streaming else EpochVariants)
        assert dataset.varies
        sample = next(dataset.samples(0)) if streaming else None
        variants = (dataset.item(sample, epoch=e) if streaming else dataset.variant(0, epoch=e) for e in range(200))
        return [variant.caption for variant in variants]

    assert all(70 < drawn().count(caption) < 130 for caption in "ab")
    mixed = drawn(captions={"short": 0.25, "text": 0.75})
    assert 30 < mixed.count("s") < 70
    assert {"a", "b", "s"} == set(mixed)
    plain = open_dataset(path, streaming=streaming, caption_column="short")
    assert not plain.varies
    mirrored = open_dataset(path, streaming=streaming, caption_column="short", horizontal_flip=True)
    if streaming:
        assert mirrored.varies
    else:
        assert len(mirrored) == 8
        assert torch.equal(mirrored[5].image, mirrored[1].image.flip(-1))


def test_random_access_is_exact(tmp_path, open_dataset):
    """Batches follow from the step, in any order; indices outside raise."""
    dataset = open_dataset(write_parquet(tmp_path / "data"))
    loader = open_batches(dataset, batch_size=5, seed=3)
    forward = [loader.batch(step).captions for step in range(6)]
    assert [loader.batch(step).captions for step in (4, 0, 5)] == [forward[4], forward[0], forward[5]]
    assert loader.state() is None
    loader.close()
    for index in (-1, 12):
        with pytest.raises(IndexError, match="items 0 to 11"):
            dataset[index]


def test_a_damaged_file_of_a_stream(tmp_path, open_dataset):
    """It is counted and the others are read."""
    folder = write_parquet(tmp_path / "data")
    dataset = open_dataset(folder, streaming=True)
    damaged = folder / "part-1.parquet"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(DamagedShardError, match=r"Shard 1 of .*data breaks off after 0 rows"):
        list(dataset.samples(1))
    loader = open_batches(dataset, batch_size=4, seed=0)
    seen = {caption for step in range(4) for caption in loader.batch(step).captions}
    assert seen == set(NUMBERED[:4] + NUMBERED[8:])
    assert {one.kind for one in loader.skipped.listed.values()} == {"damaged-shard"}
    loader.close()


def test_what_can_not_be_opened(tmp_path, open_dataset):
    """The message names the data set, the split or the columns, and the options to look at."""
    folder = write_parquet(tmp_path / "data")
    with pytest.raises(DataError, match=r"Could not open the split 'test' of the data set .*data: .*Check the options"):
        open_dataset(folder, "validation", validation_split="test")
    with pytest.raises(DataError, match="Could not open the split 'train'"):
        open_dataset("parquet", data_files=f"{folder}/none-*.parquet")
    with pytest.raises(
        DataError, match=r"Expected the columns image, caption in .*, found image, text\. Set the options"
    ):
        open_dataset(folder, caption_column="caption")
    (tmp_path / "notes.csv").write_text("a,b")
    with pytest.raises(DataError, match=r"expected a file ending in \.parquet, .* found notes\.csv"):
        open_dataset(tmp_path / "notes.csv")


class TestStreamedExample(DatasetSuite):
    """The example of the component, streamed: the installed suite tests it with random access."""

    def dataset(self, context):
        """Built from the declaration's own example."""
        installed = installed_components().find("dataset", "hf-dataset")
        options = installed.example_options(self.folder)
        return HuggingFaceStream(
            HuggingFaceDatasetOptions(
                path=options.path, cache_dir=options.cache_dir, validation_fraction=0.3, streaming=True
            ),
            context.image_size,
            context.split,
            seed=context.seed,
        )
