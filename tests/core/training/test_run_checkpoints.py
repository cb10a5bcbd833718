"""Checkpoints of one run: a damaged one is passed over, and the one before it used."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from fluid_core.errors import CheckpointError, CheckpointMismatchError
from fluid_core.training.checkpoints.file_records import check_files, file_records
from fluid_core.training.checkpoints.run_checkpoints import RunCheckpoints
from fluid_core.training.checkpoints.whole import Progress, checkpoints


@pytest.fixture(scope="module")
def finished(run_config, make_trainer, tmp_path_factory):
    """The folder of a run of six steps with three checkpoints, its configuration, and its trainer."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    config = run_config(num_steps=6, checkpoint_every=2, keep_checkpoints=3)
    trainer = make_trainer(config, folder)
    trainer.train()
    return folder, config, trainer


@pytest.fixture
def run(finished, tmp_path):
    """A copy of that run to spoil."""
    shutil.copytree(finished[0], tmp_path / "run")
    return tmp_path / "run"


def flip_a_bit(path):
    """Change one bit in the middle of a file: length and format stay as they were."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def cut(path):
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("file", ["model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("spoil", [flip_a_bit, cut, lambda path: path.unlink()], ids=["bit", "cut", "missing"])
def test_a_damaged_checkpoint_is_passed_over(finished, run, make_trainer, file, spoil):
    """Whatever is wrong with the newest, the run goes on from the one before, and says so."""
    _, config, _ = finished
    spoil(run / "checkpoints" / "step-00000006" / file)
    resumed = make_trainer(config, run, resume=True)
    assert resumed.step == 4
    told = resumed.progress.output.getvalue()
    assert file in told.replace("\n", "")
    assert "goes on from step-00000004" in " ".join(told.split())
    assert (run / "checkpoints" / "step-00000006.damaged").is_dir()
    assert [path.name for path in checkpoints(run / "checkpoints")] == ["step-00000002", "step-00000004"]


def test_a_run_that_fell_back_ends_like_the_others(finished, run, make_trainer):
    """From the checkpoint before the damaged one on, the same steps lead to the same bits."""
    folder, config, _ = finished
    for step in (4, 6):
        flip_a_bit(run / "checkpoints" / f"step-0000000{step}" / "model.safetensors")
    resumed = make_trainer(config, run, resume=True)
    assert resumed.step == 2
    resumed.train()
    for weights in ("model", "model-raw"):
        expected, found = (load_file(one / weights / "model.safetensors") for one in (folder, run))
        assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())


def test_all_damaged_is_an_error(finished, run, make_trainer):
    """Nobody starts anew by accident: with no whole checkpoint left, the person decides, and nothing was moved."""
    _, config, _ = finished
    for path in checkpoints(run / "checkpoints"):
        cut(path / "ema.safetensors")
    with pytest.raises(CheckpointError, match=r"step-00000006.ema\.safetensors is damaged.*None of the 3 checkpoints"):
        make_trainer(config, run, resume=True)
    assert len(checkpoints(run / "checkpoints")) == 3


def test_checkpoints_of_earlier_versions_have_no_records(finished, run, make_trainer):
    """They load, and what is cut short is found when it is read."""
    _, config, _ = finished
    for path in checkpoints(run / "checkpoints"):
        state = json.loads((path / "state.json").read_text())
        del state["files"], state["checksum"]
        (path / "state.json").write_text(json.dumps(state))
    assert make_trainer(config, run, resume=True).step == 6
    cut(run / "checkpoints" / "step-00000006" / "optimizer.safetensors")
    assert make_trainer(config, run, resume=True).step == 4


def test_a_checkpoint_of_another_model_is_not_passed_over(finished, run, run_config, make_trainer, tmp_path):
    """It is whole: to go on from an older one of the right model would hide a mistake."""
    _, config, _ = finished
    make_trainer(run_config("discrete", num_steps=6), tmp_path / "other").train()
    newest = run / "checkpoints" / "step-00000006"
    shutil.rmtree(newest)
    shutil.copytree(tmp_path / "other" / "checkpoints" / "step-00000006", newest)
    with pytest.raises(CheckpointMismatchError, match="does not fit"):
        make_trainer(config, run, resume=True)
    assert newest.is_dir()


def test_damaged_checkpoints_are_put_aside_under_names_of_their_own(finished, run):
    """What was damaged before stays, and the messages name both."""
    _, _, trainer = finished
    told = []
    saved = RunCheckpoints(
        run / "checkpoints",
        model=trainer.model,
        average=trainer.average,
        optimizer=trainer.optimizer,
        keep=3,
        tell=told.append,
    )
    (run / "checkpoints" / "step-00000006.damaged").mkdir()
    for step in (4, 6):
        cut(run / "checkpoints" / f"step-0000000{step}" / "model.safetensors")
    assert saved.load_newest().step == 2
    names = {path.name for path in (run / "checkpoints").iterdir()}
    assert names == {"step-00000002", "step-00000004.damaged", "step-00000006.damaged", "step-00000006.damaged-2"}
    assert len(told) == 2
    # The checkpoints that follow are not crowded out by the ones put aside.
    saved.save(Progress(step=3, seconds=1.0))
    assert [path.name for path in checkpoints(run / "checkpoints")] == ["step-00000002", "step-00000003"]


def test_files_are_what_their_records_say(tmp_path):
    """Length, content and presence; several processes share the work."""
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(name * 100)
    records = file_records(sorted(tmp_path.iterdir()))
    assert records["a"]["bytes"] == 100
    check_files(tmp_path, records)
    flip_a_bit(tmp_path / "b")
    with pytest.raises(CheckpointError, match=r"b is damaged: expected 100 bytes with checksum \w{8}, found 100 bytes"):
        check_files(tmp_path, records)
    check_files(tmp_path, records, part=0, num_parts=3)
    with pytest.raises(CheckpointError):
        check_files(tmp_path, records, part=1, num_parts=3)
    cut(tmp_path / "c")
    with pytest.raises(CheckpointError, match=r"expected 100 bytes with checksum .*, found 50 bytes"):
        check_files(tmp_path, records, part=2, num_parts=3)
