"""Building caches: estimates, room on the disk, builds that were killed, and items that can not be used."""

import json
import logging
import signal
import time

import attrs
import pytest
import torch
from PIL import Image

from fluid_core.configuration import ComponentChoice, config_to_json
from fluid_core.data.captioned_images import CaptionedImage, StreamSample
from fluid_core.data.options import TokenCacheOptions
from fluid_core.data.token_cache import size_estimate
from fluid_core.data.token_cache.dataset import TokenCacheDataset
from fluid_core.data.token_cache.manifest import read_manifest
from fluid_core.data.token_cache.source import Source
from fluid_core.errors import (
    CheckpointError,
    CheckpointMismatchError,
    ConfigurationError,
    DamagedShardError,
    DataError,
    OutputError,
    TooManySkippedError,
    UnreadableImageError,
)
from fluid_core.text import example_t5_options

SMALL_SHARDS = {"shard_megabytes": 0.06}
"""Eight images of 24 x 24 pixels."""

BUILD = """
import sys
from pathlib import Path
from fluid_core.configuration import config_from_json
from fluid_core.data.token_cache.options import CacheBuildOptions
from fluid_core.training.cache_building import cache_builder

config, folder = sys.argv[1:]
config = config_from_json(Path(config).read_text(), source="test")
cache_builder(config, folder, CacheBuildOptions(batch_size=4, shard_megabytes=0.06), device="cpu").build()
"""


def contents(folder):
    """Every file of a cache with its bytes."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def opened(folder, split="train"):
    """The data set of a cache."""
    return TokenCacheDataset(TokenCacheOptions(path=str(folder)), (24, 24), split)


def test_captions_that_are_cut_are_counted(cache_config, make_builder, tmp_path, caplog):
    """A caption in full and the sum, once for what is measured before and once for the build, and no line for each."""
    path = example_t5_options(tmp_path / "t5").path
    encoder = ComponentChoice(name="t5", options={"path": path, "max_length": 4})
    with caplog.at_level(logging.WARNING, logger="fluid_core"):
        builder = make_builder(cache_config(text_encoder=encoder), tmp_path / "cache")
        caplog.clear()
        manifest = builder.build()
    first, last = caplog.messages
    num_captions = len({row.caption for row in map(opened(tmp_path / "cache").__getitem__, range(30))})
    assert manifest.shards["train"]
    assert first.endswith("was cut from the end. Further texts that are cut are counted.")
    counted = [int(word) for word in last.split() if word.isdigit()]
    assert last == f"Truncated {counted[0]} of {counted[0]} texts in all."
    assert counted[0] >= num_captions


def test_the_estimate_comes_true(cache_config, make_builder, tmp_path):
    """It names images, bytes and time, and the bytes written are within five percent of it."""
    data = ComponentChoice(name="shapes", options={"num_examples": 300, "num_validation_examples": 20})
    builder = make_builder(cache_config(data=data), tmp_path / "cache")
    expected = builder.estimate()
    assert expected.num_items == 320
    assert not (tmp_path / "cache").exists(), "an estimate writes nothing"
    assert builder.build().num_bytes == pytest.approx(expected.num_bytes, rel=0.05)
    assert "320 images to encode: about 2." in str(expected)
    assert "GB free on the disk" in str(expected)


def test_sizes_and_times_are_told_in_words():
    """Bytes in powers of a thousand, time in the unit that fits."""
    sizes = [size_estimate.readable_bytes(number) for number in (12, 3456, 10**9, 1_690_000_000_000)]
    assert sizes == ["12 bytes", "3.46 kB", "1 GB", "1.69 TB"]
    times = [size_estimate.readable_seconds(seconds) for seconds in (0.1, 60.0, 1000.0, 12_000.0, 400_000.0)]
    assert times == ["1 s", "60 s", "17 min", "3 h 20 min", "4.6 days"]


def test_too_little_room_is_noticed_before_anything_is_written(cache_config, make_builder, tmp_path, monkeypatch):
    """Both numbers are named, and how to store less."""
    monkeypatch.setattr(size_estimate, "free_bytes", lambda _folder: 100_000)
    builder = make_builder(cache_config(), tmp_path / "cache")
    with pytest.raises(OutputError, match=r"Expected room for about 28\d kB .* found 100 kB.*--no-text"):
        builder.build()
    assert not (tmp_path / "cache").exists()


def test_a_killed_build_goes_on_where_it_was(cache_config, make_builder, warm_start, tmp_path):
    """Killed by SIGKILL: nothing reads as a cache, finished shards stay untouched, and the end is bit for bit that of a
    build that was never stopped.
    """
    data = ComponentChoice(name="shapes", options={"num_examples": 1200, "num_validation_examples": 8})
    config = cache_config(data=data)
    folder, saved = tmp_path / "killed", tmp_path / "config.json"
    saved.write_text(config_to_json(config))
    with (tmp_path / "printed.txt").open("wb") as file:
        process = warm_start.start(["-c", BUILD, saved, folder], output=file, environment={"OMP_NUM_THREADS": "1"})
    try:
        while not list(folder.glob("train-00003*.done.json")):
            assert process.poll() is None, "the build ended before it could be killed"
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    finished = {path.name.removesuffix(".done.json") for path in folder.glob("*.done.json")}
    assert 4 <= len(finished) < 150
    with pytest.raises(CheckpointError, match=r"found one in the making. Run `fluid cache build` again"):
        read_manifest(folder)
    # As if it had been killed in the middle of a file, and between a shard and the note that it is whole.
    (folder / ".train-00140.safetensors.x1.unfinished").write_bytes(b"half")
    (folder / "train-00149.safetensors").write_bytes(b"of no known content")
    before = {name: ((folder / name).stat().st_mtime_ns, (folder / name).stat().st_ino) for name in finished}

    resumed = make_builder(config, folder, **SMALL_SHARDS)
    assert resumed.estimate().num_finished == 8 * len(finished)
    assert resumed.estimate().num_items == 1208 - 8 * len(finished)
    resumed.build()
    after = {name: ((folder / name).stat().st_mtime_ns, (folder / name).stat().st_ino) for name in finished}
    assert after == before
    make_builder(config, tmp_path / "whole", **SMALL_SHARDS).build()
    assert contents(folder) == contents(tmp_path / "whole")


def test_an_unfinished_shard_is_written_anew(cache_config, make_builder, tmp_path):
    """A shard that is shorter than its note says does not count, nor does one whose note is damaged."""
    config = cache_config()
    make_builder(config, tmp_path / "whole", **SMALL_SHARDS).build()
    builder = make_builder(config, tmp_path / "cut", **SMALL_SHARDS)
    with pytest.raises(KeyboardInterrupt):
        stopped_at(builder, "train-00003").build()
    names = ["train-00000.safetensors", "train-00001.safetensors"]
    shard, note = tmp_path / "cut" / names[0], tmp_path / "cut" / f"{names[1]}.done.json"
    shard.write_bytes(shard.read_bytes()[:-1])
    note.write_text(note.read_text()[:-9])
    again = make_builder(config, tmp_path / "cut", **SMALL_SHARDS)
    assert again.estimate().num_finished == 8
    again.build()
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def stopped_at(builder, name):
    """The builder, interrupted when it comes to a shard."""
    original = builder._shard

    def interrupted(piece):
        if piece.file.startswith(name):
            raise KeyboardInterrupt
        return original(piece)

    builder._shard = interrupted
    return builder


def test_a_whole_cache_is_left_alone(cache_config, make_builder, tmp_path):
    """The same build again finds nothing to do."""
    make_builder(cache_config(), tmp_path / "cache").build()
    before = contents(tmp_path / "cache")
    again = make_builder(cache_config(), tmp_path / "cache")
    assert again.is_whole
    assert again.build() == read_manifest(tmp_path / "cache")
    assert contents(tmp_path / "cache") == before


@pytest.mark.parametrize("finished", [True, False])
def test_another_cache_is_not_overwritten(cache_config, make_builder, tmp_path, finished):
    """What differs is listed, from what it was to what is asked for, and nothing changes."""
    builder = make_builder(cache_config(), tmp_path / "cache", **SMALL_SHARDS)
    if finished:
        builder.build()
    else:
        with pytest.raises(KeyboardInterrupt):
            stopped_at(builder, "train-00001").build()
    before = contents(tmp_path / "cache")
    config = cache_config(data=ComponentChoice(name="shapes", options={"num_examples": 31}))
    with pytest.raises(CheckpointMismatchError, match=r"The cache in .* is another one") as caught:
        make_builder(config, tmp_path / "cache", dtype="bfloat16")
    text = str(caught.value)
    assert "source.options.num_examples: 30 -> 31" in text
    assert '"stored_as": "float32"' in text
    assert '"stored_as": "bfloat16"' in text
    assert contents(tmp_path / "cache") == before


def test_a_folder_with_other_files_is_refused(cache_config, make_builder, tmp_path):
    """Nobody's files end up among shards, or are taken for one."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match=r"holds 'notes.txt', and no cache"):
        make_builder(cache_config(), tmp_path)
    with pytest.raises(OutputError, match=r"found the file .*notes.txt"):
        make_builder(cache_config(), tmp_path / "notes.txt")


def test_flips_are_asked_for_once(cache_config, make_builder, tmp_path):
    """Both flips of a data set that has mirrored copies would be every image twice."""
    data = ComponentChoice(name="image-folder", options={"path": str(tmp_path), "horizontal_flip": True})
    with pytest.raises(ConfigurationError, match=r"data.options.horizontal_flip. Switch the latter off"):
        make_builder(cache_config(data=data), tmp_path / "cache", both_flips=True)


def test_a_configuration_without_data_is_refused(cache_config, make_builder, tmp_path):
    """There is nothing to encode, or nothing that says which seed and how many images to fit on."""
    for part in ("data", "training"):
        with pytest.raises(ConfigurationError, match=r"Expected a \[training\] and a \[data\] section"):
            make_builder(attrs.evolve(cache_config(), **{part: None}), tmp_path / "cache")


@pytest.fixture
def folder_of_pictures(tmp_path):
    """Sixteen pictures, three of which are damaged, with captions."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for index in range(16):
        name = f"{index:02d}.png"
        Image.new("RGB", (24, 24), (16 * index, 255 - 16 * index, 100)).save(folder / name)
        if index in (2, 3, 11):
            (folder / name).write_bytes(b"no picture")
        lines.append(json.dumps({"file_name": name, "text": f"picture {index}"}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))
    return folder


def test_items_that_can_not_be_used_are_listed(cache_config, make_builder, tmp_path, folder_of_pictures):
    """They are left out, named with their reason, and the others are all there, each with its own caption."""
    data = ComponentChoice(name="image-folder", options={"path": str(folder_of_pictures), "validation_fraction": 0.0})
    builder = make_builder(cache_config(data=data), tmp_path / "cache", validation=False, **SMALL_SHARDS)
    manifest = builder.build()
    assert [one.item for one in manifest.skipped] == ["2", "3", "11"]
    assert "02.png" in manifest.skipped[0].reason
    assert [shard.num_items for shard in manifest.shards["train"]] == [6, 7]
    dataset = opened(tmp_path / "cache")
    assert [dataset[i].caption for i in range(len(dataset))] == [
        f"picture {i}" for i in range(16) if i not in (2, 3, 11)
    ]
    red = [float(dataset[i].precomputed["patches"][0, 0]) for i in range(len(dataset))]
    assert red == sorted(red)


class Postcards:
    """A stream of three shards; the second breaks off, and every fifth card can not be read."""

    image_size = (24, 24)
    num_shards = 3
    shuffle_buffer = 1
    varies = False

    def samples(self, shard):
        """Ten samples."""
        for number in range(10):
            if (shard, number) == (1, 7):
                raise DamagedShardError("shard 1 ends in the middle of a file")
            yield StreamSample(key=f"{shard}/{number}", content=10 * shard + number)

    def item(self, sample, *, epoch):
        """A grey card; grey says which."""
        assert epoch == 0
        if sample.content % 5 == 4:
            raise UnreadableImageError(f"card {sample.key} is damaged")
        return CaptionedImage(image=torch.full((3, 24, 24), sample.content / 50), caption=f"card {sample.key}")


def test_streams_are_cut_into_the_same_pieces_every_time():
    """Each shard of a stream becomes shards of its own, in order and whole, whether or not all of one is read."""
    source = Source(Postcards(), "train")
    pieces = [(piece.file, [item.key for item in piece.items]) for piece in source.pieces(4)]
    assert [name for name, _ in pieces] == [
        f"train-0000{shard}-00{part}.safetensors" for shard in range(3) for part in range(3 - (shard == 1))
    ]
    assert [key for _, keys in pieces for key in keys] == [
        f"{shard}/{number}" for shard in range(3) for number in range(10) if shard != 1 or number < 7
    ]
    assert [piece.file for piece in Source(Postcards(), "train").pieces(4)] == [name for name, _ in pieces]
    assert source.num_items is None
    assert source.about_how_many() == 30
    assert [one.reason for one in source.damaged_shards.values()] == ["shard 1 ends in the middle of a file"]


def test_a_stream_becomes_a_cache_with_random_access(cache_config, make_builder, tmp_path):
    """Everything that can be read is there, what can not is listed, and a stopped build goes on."""
    config = cache_config()

    def builder(folder):
        made = make_builder(config, folder, validation=False, **SMALL_SHARDS)
        made._contents = attrs.evolve(made._contents, sources=(Source(Postcards(), "train"),))
        made.plan = attrs.evolve(made.plan, num_source_items={"train": None}, items_per_shard=4)
        return made

    manifest = builder(tmp_path / "whole").build()
    expected = [f"{shard}/{number}" for shard in range(3) for number in range(10) if shard != 1 or number < 7]
    left_out = [key for key in expected if key[-1] in "49"]
    assert [one.item for one in manifest.skipped] == [*left_out, "shard 1"]
    dataset = opened(tmp_path / "whole")
    captions = [dataset[index].caption for index in range(len(dataset))]
    assert captions == [f"card {key}" for key in expected if key not in left_out]
    assert float(dataset[captions.index("card 2/3")].precomputed["patches"][0, 0]) == pytest.approx(23 / 50)


def test_a_data_set_of_damaged_pictures_is_refused(cache_config, make_builder, tmp_path, folder_of_pictures):
    """If no picture can be read there is nothing to measure."""
    for path in folder_of_pictures.glob("*.png"):
        path.write_bytes(b"no picture")
    data = ComponentChoice(name="image-folder", options={"path": str(folder_of_pictures), "validation_fraction": 0.0})
    with pytest.raises(DataError, match="Not one picture of the data set can be read"):
        make_builder(cache_config(data=data), tmp_path / "cache", validation=False)


def test_too_many_damaged_pictures_stop_the_build(cache_config, make_builder, tmp_path):
    """A build that would leave out more than training allows ends with a reason, and says how to allow it."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(220):
        if index % 4:
            Image.new("RGB", (24, 24), (index, 255 - index, 100)).save(folder / f"{index:03d}.png")
        else:
            (folder / f"{index:03d}.png").write_bytes(b"no picture")
    lines = [json.dumps({"file_name": f"{index:03d}.png", "text": f"picture {index}"}) for index in range(220)]
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    config = cache_config(data=ComponentChoice(name="image-folder", options={"path": str(folder)}))
    config = attrs.evolve(config, training=attrs.evolve(config.training, max_skipped_share=0.2))
    with pytest.raises(TooManySkippedError, match=r"training.max_skipped_share"):
        make_builder(config, tmp_path / "cache", validation=False).build()
    with pytest.raises(CheckpointError, match="found one in the making"):
        read_manifest(tmp_path / "cache")
