"""Training from every kind of source: whole runs, resumed streams, several processes, and what was skipped."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from fluid_core.configuration import ComponentChoice, TokenizerRunConfig, TokenizerTrainingConfig
from fluid_core.data.open_batches import open_batches
from fluid_core.errors import CheckpointMismatchError, TooManySkippedError
from fluid_core.training.checkpoints.whole import checkpoints
from fluid_core.training.processes import Processes
from fluid_core.training.sight.metrics import read_metrics
from fluid_core.training.sight.skipped_file import SkippedFile
from fluid_core.training.tokenizers.trainer import TokenizerTrainer


def picture(number, size=24):
    """The bytes of a picture of noise."""
    content = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def image_folder(folder, count=24, damaged=()):
    """A folder with numbered pictures, some cut short."""
    folder.mkdir()
    for number in range(count):
        content = picture(number)
        (folder / f"{number}.png").write_bytes(content[:60] if number in damaged else content)
    lines = (json.dumps({"file_name": f"{number}.png", "text": f"picture {number}"}) for number in range(count))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return ComponentChoice(name="image-folder", options={"path": str(folder), "validation_fraction": 0.2})


def webdataset(folder, num_shards=6, per_shard=4, damaged=(), **options):
    """Shards of numbered pictures, some cut short."""
    folder.mkdir()
    for shard in range(num_shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for place in range(per_shard):
                number = shard * per_shard + place
                content = picture(number)[:60] if number in damaged else picture(number)
                for name, data in ((f"{number}.png", content), (f"{number}.txt", f"picture {number}".encode())):
                    entry = tarfile.TarInfo(name)
                    entry.size = len(data)
                    archive.addfile(entry, io.BytesIO(data))
    return ComponentChoice(
        name="webdataset",
        options={"path": str(folder), "validation_fraction": 0.2, "shuffle_buffer": 4, **options},
    )


def hugging_face(folder, *, streaming):
    """Parquet files of numbered pictures."""
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    folder.mkdir()
    for file in range(3):
        rows = range(8 * file, 8 * file + 8)
        content = {
            "image": [{"bytes": picture(row), "path": None} for row in rows],
            "text": [f"picture {row}" for row in rows],
        }
        table = datasets.Dataset.from_dict(content).cast_column("image", datasets.Image())
        table.to_parquet(str(folder / f"{file}.parquet"))
    options = {
        "path": str(folder),
        "cache_dir": str(folder.parent / "cache"),
        "validation_fraction": 0.2,
        "streaming": streaming,
    }
    return ComponentChoice(name="hf-dataset", options=options)


SOURCES = {
    "image-folder": image_folder,
    "webdataset": webdataset,
    "hf-dataset": lambda folder: hugging_face(folder, streaming=False),
    "hf-dataset streamed": lambda folder: hugging_face(folder, streaming=True),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_run_from_every_source(source, run_config, make_trainer, tmp_path):
    """A tokenizer is fitted, a model trained, validated and saved; streams keep their position in the checkpoint."""
    data = SOURCES[source](tmp_path / "data")
    config = run_config(parts={"data": data}, num_steps=4, num_validation_images=3)
    result = make_trainer(config, tmp_path / "run").train()
    assert result.num_steps == 4
    assert result.validation["loss"] > 0
    assert (result.model_folder / "model.safetensors").is_file()
    assert not (tmp_path / "run" / "skipped.jsonl").exists()
    state = json.loads((checkpoints(tmp_path / "run" / "checkpoints")[-1] / "state.json").read_text())
    if source in ("webdataset", "hf-dataset streamed"):
        (position,) = state["data"]
        assert position["num_shards"] == {"webdataset": 6, "hf-dataset streamed": 3}[source]
    else:
        assert "data" not in state


def watched(trainer):
    """A list that receives the captions of every batch trained on."""
    seen = []
    encode = trainer.model.encode

    def encode_and_note(images, captions):
        if trainer.model.training:
            seen.extend(captions)
        return encode(images, captions)

    trainer.model.encode = encode_and_note
    return seen


def test_a_resumed_stream_begins_with_the_shard_it_was_in(run_config, make_trainer, tmp_path):
    """Killed after step 15, it goes on from the checkpoint of step 12; both parts together see every item."""
    data = webdataset(tmp_path / "data", num_shards=8, per_shard=5, validation_fraction=0.0)
    config = run_config(parts={"data": data}, num_steps=36, batch_size=2)
    killed = make_trainer(config, tmp_path / "run", stop_after=15)
    seen = watched(killed)
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    before = seen[:24]
    state = json.loads((tmp_path / "run" / "checkpoints" / "step-00000012" / "state.json").read_text())
    (position,) = state["data"]
    resumed = make_trainer(config, tmp_path / "run", resume=True)
    assert resumed.step == 12
    after = watched(resumed)
    resumed.train()
    shard_of = {f"picture {number}": number // 5 for number in range(40)}
    assert {shard_of[caption] for caption in after[: 5 * len(position["shards"])]} == set(position["shards"])
    finished = set(range(8)) - set(position["shards"])
    assert finished
    assert all(sum(shard_of[caption] == shard for caption in before) == 5 for shard in finished)
    of_epoch = set(before) | set(after[: 5 * len(position["shards"])])
    assert of_epoch == set(shard_of)
    assert len(after) == 48


def test_a_checkpoint_without_a_position_starts_the_stream_anew(run_config, make_trainer, tmp_path):
    """Checkpoints of before can be resumed; a damaged position, or another stream, is told."""
    data = webdataset(tmp_path / "data")
    make_trainer(run_config(parts={"data": data}, num_steps=4), tmp_path / "run").train()
    file = checkpoints(tmp_path / "run" / "checkpoints")[-1] / "state.json"
    state = json.loads(file.read_text())
    file.write_text(json.dumps({key: value for key, value in state.items() if key not in ("data", "checksum")}))
    longer = run_config(parts={"data": data}, num_steps=6, checkpoint_every=10)
    assert make_trainer(longer, tmp_path / "run", resume=True).train().num_steps == 6
    file = checkpoints(tmp_path / "run" / "checkpoints")[-1] / "state.json"
    state = json.loads(file.read_text())
    longer = run_config(parts={"data": data}, num_steps=8)
    del state["checksum"]
    file.write_text(json.dumps({**state, "data": 3}))
    passed_over = make_trainer(longer, tmp_path / "run", resume=True)
    assert passed_over.step == 4
    assert "expected a list of positions in the data" in " ".join(passed_over.progress.output.getvalue().split())
    file.parent.with_name("step-00000006.damaged").rename(file.parent)
    file.write_text(json.dumps(state))
    (tmp_path / "data" / "00005.tar").unlink()
    with pytest.raises(CheckpointMismatchError, match="of 6 shards, found one of 5"):
        make_trainer(longer, tmp_path / "run", resume=True).train()


@pytest.mark.slow
def test_two_processes_read_shards_of_their_own(run_config, train_in_processes, tmp_path):
    """Through `torchrun`: the checkpoint holds both positions, which share no shard, and the run goes on from it."""
    data = webdataset(tmp_path / "data", num_shards=8)
    config = run_config(parts={"data": data}, num_steps=2, batch_size=4, checkpoint_every=2)
    train_in_processes(config, tmp_path / "run", num_processes=2)
    state = json.loads((tmp_path / "run" / "checkpoints" / "step-00000002" / "state.json").read_text())
    first, second = state["data"]
    assert not set(first["shards"]) & set(second["shards"])
    assert first["epoch"] == second["epoch"] == 0
    longer = run_config(parts={"data": data}, num_steps=4, batch_size=4, checkpoint_every=2)
    train_in_processes(longer, tmp_path / "run", num_processes=2, resume=True)
    state = json.loads((tmp_path / "run" / "checkpoints" / "step-00000004" / "state.json").read_text())
    assert len(state["data"]) == 2
    assert load_file(tmp_path / "run" / "model" / "model.safetensors")


@pytest.mark.parametrize("source", [image_folder, webdataset])
def test_skipped_pictures_are_listed_in_the_run_folder(source, run_config, make_trainer, tmp_path):
    """Which, what and why, once each, also after a resume with a line cut by a kill."""
    data = source(tmp_path / "data", damaged=(3, 10, 17))
    config = run_config(parts={"data": data}, num_steps=12)
    trainer = make_trainer(config, tmp_path / "run")
    trainer.train()
    file = tmp_path / "run" / "skipped.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert rows
    assert {row["kind"] for row in rows} == {"unreadable"}
    assert {row["when"] for row in rows} == {"training"}
    assert all("Could not read the picture" in row["reason"] for row in rows)
    assert len({row["item"] for row in rows}) == len(rows)
    assert read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]["num_skipped_images"] == len(rows)
    with file.open("a") as cut:
        cut.write('{"item": "9')
    longer = run_config(parts={"data": data}, num_steps=30, num_validation_images=50)
    make_trainer(longer, tmp_path / "run", resume=True).train()
    after = [json.loads(line) for line in file.read_text().splitlines()]
    assert after[: len(rows)] == rows
    assert len({(row["item"], row["when"]) for row in after}) == len(after)
    assert len(after) == 3


@pytest.mark.parametrize("source", [image_folder, webdataset])
def test_a_run_stops_when_too_many_pictures_fail(source, run_config, make_trainer, tmp_path):
    """A third is damaged: after 200 items the run ends with the reason and the list; a larger share lets it pass."""
    data = source(tmp_path / "data", damaged=range(0, 24, 3))
    config = run_config(parts={"data": data}, num_steps=100, batch_size=8, max_skipped_share=0.1)
    with pytest.raises(TooManySkippedError, match=r"more than training\.max_skipped_share allows \(10\.0%\)"):
        make_trainer(config, tmp_path / "run").train()
    assert len((tmp_path / "run" / "skipped.jsonl").read_text().splitlines()) >= 5
    steps = [row["step"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert 10 < max(steps) < 40
    lenient = run_config(parts={"data": data}, num_steps=40, batch_size=8, max_skipped_share=0.6)
    assert make_trainer(lenient, tmp_path / "lenient").train().num_steps == 40


def test_every_process_lists_what_it_skips(tmp_path):
    """Files of several processes have different names."""
    names = [SkippedFile(tmp_path, Processes(rank=rank, count=3)).path.name for rank in range(3)]
    assert names == ["skipped.jsonl", "skipped-1.jsonl", "skipped-2.jsonl"]


def test_one_process_gathers_its_own():
    """Without others the list has one element."""
    assert Processes().gather_json({"a": [1, "ü"]}) == [{"a": [1, "ü"]}]


def test_shares_of_two_processes_partition_the_shards(run_config, make_trainer, tmp_path):
    """What two processes would read in an epoch is everything, once."""
    data = webdataset(tmp_path / "data", num_shards=6, per_shard=4, validation_fraction=0.0)
    stream = make_trainer(run_config(parts={"data": data}), tmp_path / "run").train_data
    captions = []
    for rank in range(2):
        loader = open_batches(stream, batch_size=4, seed=0, share=Processes(rank=rank, count=2).share(4))
        captions += [caption for step in range(6) for caption in loader.batch(step).captions]
        loader.close()
    assert sorted(captions) == sorted(f"picture {number}" for number in range(24))


def test_a_tokenizer_trains_on_a_stream_and_resumes(quiet_progress, tmp_path):
    """The position is kept there too."""
    data = webdataset(tmp_path / "data")
    architecture = {
        "class": "AutoencoderKL",
        "down_block_types": ["DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D"],
        "block_out_channels": [4],
        "layers_per_block": 1,
        "norm_num_groups": 2,
        "latent_channels": 2,
        "mid_block_add_attention": False,
    }
    tokenizer = ComponentChoice(name="kl-autoencoder", options={"architecture": architecture, "image_size": 8})

    def train(num_steps, **others):
        course = TokenizerTrainingConfig(
            num_steps=num_steps, batch_size=4, checkpoint_every=2, sample_every=0, num_fit_images=8, device="cpu"
        )
        run = TokenizerRunConfig(tokenizer=tokenizer, data=data, training=course)
        return TokenizerTrainer(run, tmp_path / "run", progress=quiet_progress(), **others).train()

    assert train(2).validation["psnr"] > 0
    state = json.loads((tmp_path / "run" / "checkpoints" / "step-00000002" / "state.json").read_text())
    assert state["data"][0]["num_shards"] == 6
    assert train(4, resume=True).num_steps == 4
