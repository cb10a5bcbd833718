"""Tar shards in img2dataset's layout: keys, captions, patterns of names, damage, splits."""

import gzip
import io
import json
import subprocess
import sys
import tarfile

import pytest
import torch
from PIL import Image

from fluid_core.data.captioned_images import CaptionedStream
from fluid_core.data.open_batches import open_batches
from fluid_core.data.options import WebDatasetOptions
from fluid_core.data.webdataset import WebDatasetStream, build_webdataset, expanded_shards
from fluid_core.errors import (
    ConfigurationError,
    DamagedShardError,
    DataError,
    ImageSizeError,
    MissingCaptionError,
    UnreadableImageError,
)
from fluid_core.exchange import DatasetContext


def encoded(color=(200, 100, 50), size=(20, 10), form="PNG"):
    """The bytes of a picture of one colour."""
    content = io.BytesIO()
    Image.new("RGB", size, color).save(content, form)
    return content.getvalue()


def write_shard(path, files):
    """A tar file of named contents: bytes, texts, or objects that become JSON."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            data = content if isinstance(content, bytes) else None
            data = data or (content if isinstance(content, str) else json.dumps(content)).encode()
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def write_shards(folder, num_shards=4, per_shard=5):
    """Shards as img2dataset writes them: picture, text and metadata for each sample."""
    folder.mkdir(exist_ok=True)
    for shard in range(num_shards):
        files = {}
        for place in range(per_shard):
            key = f"{shard:05d}{place:04d}"
            files[f"{key}.jpg"] = encoded((shard * 40, place * 40, 100), form="JPEG")
            files[f"{key}.txt"] = f"shard {shard} place {place}"
            files[f"{key}.json"] = {"key": key, "caption": f"long {shard} {place}", "status": "success"}
        write_shard(folder / f"{shard:05d}.tar", files)
    return folder


def stream(path, split="train", image_size=(8, 8), **options):
    """The stream of some shards, with everything in training unless said otherwise."""
    return WebDatasetStream(WebDatasetOptions(path=path, **{"validation_fraction": 0.0, **options}), image_size, split)


def items(dataset, epoch=0):
    """Every item of every shard, by key."""
    samples = (sample for shard in range(dataset.num_shards) for sample in dataset.samples(shard))
    return {sample.key: dataset.item(sample, epoch=epoch) for sample in samples}


def test_samples_are_pictures_with_their_captions(tmp_path):
    """In the order of the shards and the files in them."""
    options = WebDatasetOptions(path=str(write_shards(tmp_path / "data")), validation_fraction=0.0)
    dataset = build_webdataset(options, DatasetContext(image_size=(6, 8)))
    assert isinstance(dataset, CaptionedStream)
    assert dataset.num_shards == 4
    found = items(dataset)
    assert list(found)[:2] == ["00000.tar/000000000", "00000.tar/000000001"]
    assert [item.caption for item in found.values()] == [f"shard {s} place {p}" for s in range(4) for p in range(5)]
    image = found["00002.tar/000020003"].image
    expected = torch.tensor([80, 120, 100]) / 127.5 - 1
    torch.testing.assert_close(image, expected[:, None, None].expand(3, 6, 8), atol=0.03, rtol=0)


def test_endings_and_places_of_captions(tmp_path):
    """Every ending in use is taken, capital letters too; captions may stand in the metadata; columns have shares."""
    shard = write_shard(
        tmp_path / "a.tar",
        {
            "1.PNG": encoded(),
            "1.txt": " one \n",
            "2.webp": encoded(form="WEBP"),
            "2.caption": "two",
            "3.jpeg": encoded(form="JPEG"),
            "3.text": "three",
            "4.jpg": encoded(form="JPEG"),
            "4.json": {"caption": "four"},
            "5.png": encoded(),
            "5.json": {"caption": ["five", "fünf"], "short": "5"},
        },
    )
    assert [item.caption for item in items(stream(str(shard))).values()][:4] == ["one", "two", "three", "four"]
    drawn = [items(stream(str(shard)), epoch)["a.tar/5"].caption for epoch in range(20)]
    assert set(drawn) == {"five", "fünf"}
    mixed = stream(str(shard), captions={"short": 0.2, "caption": 0.8})
    sample = list(mixed.samples(0))[4]
    drawn = [mixed.item(sample, epoch=epoch).caption for epoch in range(500)]
    assert 60 < drawn.count("5") < 140
    assert mixed.varies


@pytest.mark.parametrize(
    ("files", "error", "problem"),
    [
        ({"1.txt": "words"}, UnreadableImageError, "a.tar/1 has no picture: .*jpg;jpeg;png;webp, found txt"),
        ({"1.png": b"no picture", "1.txt": "a"}, UnreadableImageError, r"a\.tar/1: cannot identify"),
        ({"1.png": encoded()[:45], "1.txt": "a"}, UnreadableImageError, r"Could not read the picture a\.tar/1"),
        ({"1.png": encoded()}, MissingCaptionError, r"a\.tar/1 has no caption: expected a text, found '.*': None"),
        ({"1.png": encoded(), "1.txt": "  "}, MissingCaptionError, "has no caption"),
        ({"1.png": encoded(), "1.json": "{broken"}, MissingCaptionError, "has no caption"),
        ({"1.png": encoded(), "1.json": {"caption": None}}, MissingCaptionError, "has no caption"),
        (
            {"1.png": encoded(size=(300, 200)), "1.txt": "a"},
            ImageSizeError,
            "300 x 200 pixels, which is more than 50000",
        ),
        (
            {"1.png": encoded(size=(300, 5)), "1.txt": "a"},
            ImageSizeError,
            "300 x 5 pixels; its shorter side must have 8",
        ),
    ],
)
def test_samples_that_can_not_be_used(tmp_path, files, error, problem):
    """Each raises an error of its kind that names the sample, and the next one is whole."""
    shard = write_shard(tmp_path / "a.tar", {**files, "2.png": encoded(), "2.txt": "fine"})
    dataset = stream(str(shard), max_pixels=50_000, min_image_size=8)
    bad, good = dataset.samples(0)
    with pytest.raises(error, match=problem):
        dataset.item(bad, epoch=0)
    assert dataset.item(good, epoch=0).caption == "fine"


def test_a_truncated_shard_gives_what_it_has(tmp_path):
    """Cut anywhere it yields whole samples in order and then says so; a file that is no archive yields none."""
    folder = write_shards(tmp_path / "data", num_shards=1)
    path = folder / "00000.tar"
    whole = path.read_bytes()
    all_keys = list(items(stream(str(path))))
    for length in range(300, len(whole) - 10_240, 777):
        path.write_bytes(whole[:length])
        keys = []
        with pytest.raises(DamagedShardError, match=r"The shard .*00000\.tar breaks off after \d samples"):
            keys.extend(sample.key for sample in stream(str(path)).samples(0))
        assert keys == all_keys[: len(keys)]
        assert len(keys) >= length // (len(whole) // 5) - 2
    with gzip.open(folder / "packed.tar.gz", "wb") as packed:
        packed.write(whole)
    assert len(items(stream(str(folder / "packed.tar.gz")))) == 5
    compressed = (folder / "packed.tar.gz").read_bytes()
    (folder / "packed.tar.gz").write_bytes(compressed[: len(compressed) // 2])
    with pytest.raises(DamagedShardError):
        list(stream(str(folder / "packed.tar.gz")).samples(0))
    path.write_bytes(b"<html>404 not found</html>" * 100)
    with pytest.raises(DamagedShardError, match="after 0 samples"):
        list(stream(str(path)).samples(0))


def test_training_goes_on_past_damage_unless_all_is_damaged(tmp_path):
    """A cut shard and a missing caption are counted; when every shard is cut at once, that is the end."""
    folder = write_shards(tmp_path / "data", num_shards=3)
    cut = folder / "00001.tar"
    cut.write_bytes(cut.read_bytes()[:9000])
    loader = open_batches(stream(str(folder)), batch_size=4, seed=0)
    captions = {caption for step in range(12) for caption in loader.batch(step).captions}
    loader.close()
    assert {f"shard {shard} place {place}" for shard in (0, 2) for place in range(5)} <= captions
    assert "damaged-shard" in {one.kind for one in loader.skipped.listed.values()}
    for path in folder.glob("*.tar"):
        path.write_bytes(b"x" * 2000)
    loader = open_batches(stream(str(folder)), batch_size=4, seed=0)
    with pytest.raises(DataError, match="found not one that can be used"):
        loader.batch(0)
    loader.close()


def test_shards_by_folder_pattern_range_list_and_pipe(tmp_path):
    """Each stands for the same files, in the same order; a pipe is read as the library reads it."""
    folder = write_shards(tmp_path / "data")
    names = tuple(str(folder / f"{shard:05d}.tar") for shard in range(4))
    for path in (str(folder), f"{folder}/*.tar", f"{folder}/{{00000..00003}}.tar", names, (*names, names[0])):
        assert expanded_shards(path) == names
    piped = stream(f"pipe:cat {folder}/{{00000..00001}}.tar")
    assert piped.num_shards == 2
    assert len(items(piped)) == 10
    assert expanded_shards("https://example.org/{0..1}.tar") == (
        "https://example.org/0.tar",
        "https://example.org/1.tar",
    )
    failing = stream("pipe:cat /nowhere/at/all.tar")
    with pytest.raises(DamagedShardError, match=r"all\.tar breaks off after 0 samples"):
        list(failing.samples(0))


def test_shards_that_are_not_there(tmp_path):
    """Each message names the pattern and what to do."""
    (tmp_path / "empty").mkdir()
    for path, problem in (
        (f"{tmp_path}/no*.tar", "No shard matches '.*no\\*.tar'"),
        (f"{tmp_path}/gone.tar", "No shard matches '.*gone.tar'"),
        (str(tmp_path / "empty"), "Expected tar files in the folder .*empty, found none"),
    ):
        with pytest.raises(DataError, match=problem):
            stream(path)


def test_splits_by_hash_are_disjoint_and_complete(tmp_path):
    """Every sample is in one split, about the wanted share in validation, whichever folder the shards lie in."""
    folder = write_shards(tmp_path / "data", num_shards=10, per_shard=20)
    train, validation = (
        items(stream(str(folder), split, validation_fraction=0.2)) for split in ("train", "validation")
    )
    assert not train.keys() & validation.keys()
    assert len(train) + len(validation) == 200
    assert 20 < len(validation) < 60
    folder.rename(tmp_path / "moved")
    assert items(stream(str(tmp_path / "moved"), "validation", validation_fraction=0.2)).keys() == validation.keys()
    with pytest.raises(ConfigurationError, match=r"validation_fraction is 0\. Set it above 0, or set validation_path"):
        stream(str(tmp_path / "moved"), "validation")


def test_shards_of_their_own_for_validation(tmp_path):
    """All of path is trained on then; a shard in both is refused."""
    folder = write_shards(tmp_path / "data")
    paths = {"path": f"{folder}/{{00000..00002}}.tar", "validation_path": f"{folder}/00003.tar"}
    assert len(items(stream(**paths))) == 15
    assert {key[:9] for key in items(stream(split="validation", **paths))} == {"00003.tar"}
    with pytest.raises(ConfigurationError, match=r"found 1 in both, such as .*00002\.tar"):
        stream(paths["path"], validation_path=f"{folder}/00002.tar")


def test_mirroring_and_crops_follow_from_seed_epoch_and_key(tmp_path):
    """About half are mirrored, others in every epoch; the same seed gives the same, and validation mirrors none."""
    picture = Image.new("RGB", (16, 8), "white")
    picture.paste("black", (0, 0, 8, 8))
    content = io.BytesIO()
    picture.save(content, "PNG")
    files = {f"{i}.{end}": data for i in range(60) for end, data in (("png", content.getvalue()), ("txt", "half"))}
    path = str(write_shard(tmp_path / "a.tar", files))

    def dark_left(dataset, epoch):
        return [bool(item.image[:, :, :2].mean() < 0) for item in items(dataset, epoch).values()]

    options = {"horizontal_flip": True, "crop": "none"}
    dataset = stream(path, **options)
    first, second = dark_left(dataset, 0), dark_left(dataset, 1)
    assert 15 < sum(first) < 45
    assert first != second
    assert dark_left(stream(path, **options), 1) == second
    other = WebDatasetStream(WebDatasetOptions(path=path, validation_fraction=0.0, **options), (8, 8), "train", seed=1)
    assert dark_left(other, 1) != second
    assert all(dark_left(stream(path, "validation", **{**options, "validation_fraction": 0.5}), 1))
    cropped = stream(path, crop="random")
    sample = next(cropped.samples(0))
    means = [float(cropped.item(sample, epoch=epoch).image.mean()) for epoch in range(40)]
    assert max(means) - min(means) > 1
    assert means == [float(cropped.item(sample, epoch=epoch).image.mean()) for epoch in range(40)]


@pytest.mark.parametrize(
    ("package", "component", "options"),
    [("webdataset", "webdataset", {"path": "x.tar"}), ("datasets", "hf-dataset", {"path": "x.parquet"})],
)
def test_a_missing_library_is_named_with_its_extra(package, component, options):
    """Without the optional package the error says what to install; listing the components needs none."""
    code = (
        f"import sys; sys.modules['{package}'] = None\n"
        "from fluid_core.catalog import installed_components\n"
        "from fluid_core.errors import MissingPackageError\n"
        "from fluid_core.exchange import DatasetContext\n"
        "catalog = installed_components()\n"
        f"try: catalog.build('dataset', '{component}', {options!r}, DatasetContext(image_size=(8, 8)))\n"
        "except MissingPackageError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"The data set '{component}' needs the package {package}, which is not installed" in run.stdout, run.stderr
    assert "pip install 'fluid-core[data]'" in run.stdout
