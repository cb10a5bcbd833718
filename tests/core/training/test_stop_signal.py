"""SIGTERM: a checkpoint, a message how to resume, and an exit code of its own; the resumed run loses nothing."""

import os
import signal
import subprocess
import sys
import threading
import time

import attrs
import pytest
import torch

from fluid_core.configuration import config_to_json
from fluid_core.errors import RunStoppedError
from fluid_core.training.checkpoints.whole import checkpoints
from fluid_core.training.run.stop_signal import StopSignal
from fluid_core.training.sight.metrics import OF_THE_MACHINE, read_metrics


def rows(folder):
    """The rows of a run's metrics but for what depends on the machine."""
    return [
        {key: value for key, value in row.items() if key not in OF_THE_MACHINE}
        for row in read_metrics(folder / "metrics.jsonl")
    ]


def test_a_run_that_is_asked_to_end_can_go_on_bit_equal(run_config, make_trainer, tmp_path):
    """It ends after the step it is in, with a checkpoint there though none was due, and no look at samples."""
    settings = {"num_steps": 6, "checkpoint_every": 4, "num_validation_images": 4, "sample_every": 1, "log_every": 2}
    config = run_config(parts={"sample_prompts": ("a red circle",)}, **settings)
    whole = make_trainer(config, tmp_path / "whole")
    whole.train()
    trainer = make_trainer(config, tmp_path / "run")
    before = signal.getsignal(signal.SIGTERM)
    stepped = trainer.progress.stepped

    def terminate(step, loss):
        stepped(step, loss)
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    trainer.progress.stepped = terminate
    with pytest.raises(RunStoppedError, match=r"Stopped by SIGTERM after step 3\. .*step-00000003 is whole: resume"):
        trainer.train()
    assert signal.getsignal(signal.SIGTERM) == before
    assert [path.name for path in checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000003"]
    assert not (tmp_path / "run" / "samples" / "step-00000003.png").exists()
    assert not (tmp_path / "run" / "model").exists()
    resumed = make_trainer(config, tmp_path / "run", resume=True)
    assert resumed.step == 3
    resumed.train()
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


def test_a_signal_in_the_last_step_ends_the_run_as_usual(run_config, make_trainer, tmp_path):
    """There is nothing left to resume: the model is saved."""
    trainer = make_trainer(run_config(num_steps=2), tmp_path / "run")
    stepped = trainer.progress.stepped
    trainer.progress.stepped = lambda step, loss: (stepped(step, loss), step == 2 and signal.raise_signal(15))
    assert trainer.train().num_steps == 2
    assert (tmp_path / "run" / "model").is_dir()


def test_only_the_main_thread_can_notice():
    """Elsewhere the block runs as if there were no signals."""
    seen = []

    def work():
        stop = StopSignal()
        with stop.awaited():
            seen.append(stop.came)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


PROGRAM = """
import sys
from fluid_core.configuration import config_from_json
from pathlib import Path
from fluid_core import cli, load_config
import fluid_core.configuration

saved, folder = sys.argv[1:]
fluid_core.configuration.load_config = lambda *_, **__: config_from_json(Path(saved).read_text())
sys.argv = ["fluid", "train", "unused.toml", "--out", folder]
cli.main()
"""


def wait_for(condition, process, seconds=120.0):
    """Until something is so, as long as a process lives."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [1, 2])
def test_the_program_exits_with_143_and_says_how_to_resume(num_processes, run_config, make_trainer, tmp_path):
    """`fluid train`, alone and through torchrun: all processes end after the same step, and the run goes on."""
    config = run_config(num_steps=100_000, checkpoint_every=100_000, log_every=1)
    program, saved, folder = tmp_path / "program.py", tmp_path / "config.json", tmp_path / "run"
    program.write_text(PROGRAM)
    saved.write_text(config_to_json(config))
    start = [sys.executable]
    if num_processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_processes}"]
    process = subprocess.Popen(
        [*start, str(program), str(saved), str(folder)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )
    try:
        metrics = folder / "metrics.jsonl"
        wait_for(lambda: metrics.exists() and len(metrics.read_text().splitlines()) >= 5, process)
        process.send_signal(signal.SIGTERM)
        _, output = process.communicate(timeout=120)
    finally:
        process.kill()
    (checkpoint,) = checkpoints(folder / "checkpoints")
    step = int(checkpoint.name.removeprefix("step-"))
    assert step >= 5
    if num_processes == 1:
        assert process.returncode == 143
    # Of several processes every one says it, with the same step.
    assert output.count(f"Stopped by SIGTERM after step {step}.") == num_processes
    assert output.count("Stopped by SIGTERM") == num_processes
    assert "is whole: resume with --resume" in output.replace("\n", " ")
    go_on = attrs.evolve(config, training=attrs.evolve(config.training, num_steps=step + 1))
    resumed = make_trainer(go_on, folder, resume=True)
    assert resumed.step == step
    assert resumed.train().num_steps == step + 1
