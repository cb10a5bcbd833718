"""A disk that is too small is found before the first step, one that fills up leaves the last checkpoint whole."""

import errno
import os
from types import SimpleNamespace

import pytest

from fluid_core.errors import OutputError
from fluid_core.training.run import disk_space
from fluid_core.training.run.disk_space import bytes_written
from fluid_core.training.sight.metrics import MetricsFile


def test_what_a_run_writes_is_what_was_estimated(run_config, make_trainer, tmp_path):
    """Checkpoints kept plus the one being written, and two models: the files at the end are no more, nor much less."""
    trainer = make_trainer(run_config(num_steps=6, checkpoint_every=2, keep_checkpoints=2), tmp_path / "run")
    estimate = bytes_written(trainer.model, keep=2)
    one_less = bytes_written(trainer.model, keep=1)
    trainer.train()
    found = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*.safetensors"))
    # At the end nothing is being replaced.
    assert 0.9 * one_less < found < 1.05 * one_less
    assert found < estimate


def test_a_disk_that_is_too_small_is_refused_before_training(run_config, make_trainer, tmp_path, monkeypatch):
    """With what is needed and what is free; the folder is not claimed. On resume what the run wrote counts as free."""
    free = 2**20
    monkeypatch.setattr(disk_space.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(OutputError, match=r"will write about \d+\.\d MiB: 3 checkpoints .* Free are 1\.0 MiB\. Make"):
        make_trainer(run_config(), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
    free = 2**40
    make_trainer(run_config(), tmp_path / "run").train()
    present = sum(path.stat().st_size for path in (tmp_path / "run").rglob("*.safetensors"))
    trainer = make_trainer(run_config(num_steps=5), tmp_path / "run", resume=True)
    free = bytes_written(trainer.model, keep=2) - present + 1
    make_trainer(run_config(num_steps=5), tmp_path / "run", resume=True)
    free -= 2
    with pytest.raises(OutputError, match=r"besides \d+\.\d MiB that the run has written"):
        make_trainer(run_config(num_steps=5), tmp_path / "run", resume=True)


def test_a_disk_that_fills_up_leaves_the_checkpoint_before(run_config, make_trainer, tmp_path, monkeypatch):
    """The run ends with the system's reason and where it goes on; it does go on, once there is room."""
    config = run_config(num_steps=6, checkpoint_every=2)
    trainer = make_trainer(config, tmp_path / "run")
    fsync = os.fsync

    def full(handle):
        if trainer.step == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="can not be written: No space left on device") as caught:
            trainer.train()
    assert any(
        "The run ended after step 4." in note and "step-00000002 is whole" in note for note in caught.value.__notes__
    )
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-00000002"]
    resumed = make_trainer(config, tmp_path / "run", resume=True)
    assert resumed.step == 2
    assert resumed.train().num_steps == 6


def test_a_line_of_metrics_that_finds_no_room(tmp_path, monkeypatch):
    """It is the same clear error, not one of the system's own."""
    file = MetricsFile(tmp_path / "metrics.jsonl")
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"metrics\.jsonl can not be written"):
        file.write(step=1, loss=0.5)
