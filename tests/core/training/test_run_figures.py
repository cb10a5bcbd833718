"""Operations, utilisation, memory and time left: what a run tells of its speed. And TensorBoard's copy of it."""

import builtins
import mmap
import time

import pytest
import torch

from fluid_core.configuration import BackboneConfig
from fluid_core.errors import MissingPackageError
from fluid_core.training.sight import figures as run_figures
from fluid_core.training.sight.device_peak import known_peak, peak_flops
from fluid_core.training.sight.event_files import EventFiles
from fluid_core.training.sight.figures import RunFigures
from fluid_core.training.sight.memory_in_use import memory_in_use
from fluid_core.training.sight.metrics import read_metrics
from fluid_core.training.sight.model_flops import training_flops

CPU = torch.device("cpu")


def prepared(model, images, captions):
    """A batch of a model, with its randomness drawn."""
    return model.prepare(images, captions, generator=torch.Generator().manual_seed(0), text_drop_probability=0.0)


@pytest.mark.parametrize(("tokens", "order"), [("continuous", "random"), ("discrete", "raster")])
def test_operations_are_those_of_forward_and_backward(tokens, order, small_model, images, captions):
    """Within a few percent of what torch counts in both passes: the first layer needs no gradient of its input."""
    model = small_model(tokens, order, backbone=BackboneConfig(width=64, depth=3, num_heads=2, aligner_depth=1))
    batch = prepared(model, images, captions)
    counted = training_flops(model, batch)
    batch = prepared(model, images, captions)
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(batch).total.backward()
    # Torch's own table leaves attention on a CPU out.
    attention = 0
    for blocks, rows, columns in ((3, 9, 9), (3, 9, batch.text.mask.shape[1]), (1, *[batch.text.mask.shape[1]] * 2)):
        attention += 3 * blocks * 2 * 2 * 4 * 64 * rows * columns
    assert counted == pytest.approx(counter.get_total_flops() + attention, rel=0.04)


def test_counting_changes_nothing(small_model, images, captions):
    """Neither weights nor gradients nor the next loss."""
    model = small_model("continuous", "random")
    batch = prepared(model, images, captions)
    before = model(batch).total.detach()
    training_flops(model, batch)
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(model(batch).total.detach(), before)


def test_the_peak_of_this_machine_is_what_it_multiplies(monkeypatch):
    """A measured figure: nothing multiplies faster, and a product of another size gets near it. Asked once."""
    peak = peak_flops(CPU, torch.float32)
    assert peak_flops(CPU, torch.float32) == peak
    one = torch.rand(384, 384)
    started = time.perf_counter()
    for _ in range(20):
        one @ one
    rate = 20 * 2 * 384**3 / (time.perf_counter() - started)
    assert peak > 1e9
    assert rate < 3.0 * peak


def test_peaks_of_gpus_are_those_of_their_data_sheets():
    """By the names that drivers give them; a GPU nobody listed is measured."""
    expected = {
        "NVIDIA H100 80GB HBM3": 989.4e12,
        "NVIDIA H100 PCIe": 756e12,
        "NVIDIA H200": 989.4e12,
        "NVIDIA A100-SXM4-80GB": 311.8e12,
        "NVIDIA GeForce RTX 4090": 165.2e12,
        "NVIDIA L4": 121e12,
        "NVIDIA L40S": 362e12,
    }
    assert {name: known_peak(name, torch.bfloat16) for name in expected} == expected
    assert known_peak("NVIDIA A100-SXM4-80GB", torch.float32) == 19.5e12
    assert known_peak("NVIDIA L400", torch.bfloat16) is None
    assert known_peak("Another GPU", torch.bfloat16) is None


def test_utilisation_by_hand(monkeypatch):
    """Two steps after the first, of 4 images at 100 FLOPs in half a second each, on two devices of 1000 FLOP/s."""
    now = [0.0]
    monkeypatch.setattr(run_figures.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(run_figures, "peak_flops", lambda *_: 1000.0)
    figures = RunFigures(CPU, torch.float32, num_devices=2)
    for seconds in (50.0, 0.5, 0.5):
        assert seconds == 50.0 or figures.figures().flops_utilisation in (None, pytest.approx(0.4))
        figures.step_begins()
        now[0] += seconds
        figures.step_ended(4, flops_per_image=100.0)
        now[0] += 7.0
    assert figures.figures(since_here=True).flops_utilisation == pytest.approx(800 / (1.0 * 2000))
    assert figures.figures().flops_utilisation is None


def test_memory_grows_with_what_is_held():
    """A hundred mebibytes more are seen, roughly.

    Pages of their own: what malloc hands out may lie in memory that earlier tests gave back and the process kept.
    """
    with mmap.mmap(-1, 100 * 2**20) as pages:
        before = memory_in_use(CPU)
        for start in range(0, len(pages), mmap.PAGESIZE):
            pages[start] = 1
        assert memory_in_use(CPU) - before == pytest.approx(len(pages), rel=0.3)


def test_a_run_tells_its_figures(run_config, make_trainer, tmp_path):
    """In every row of metrics but the first, which has no utilisation yet, and in the line of progress."""
    trainer = make_trainer(run_config(num_steps=4, log_every=1), tmp_path / "run")
    trainer.train()
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert rows[0]["model_flops_utilisation"] is None
    assert all(0.0 < row["model_flops_utilisation"] < 1.5 for row in rows[1:])
    assert all(row["memory_bytes"] > 2**26 for row in rows)
    assert rows[-1]["seconds_left"] == 0.0
    assert rows[1]["seconds_left"] > 0.0
    line = trainer.progress.output.getvalue().splitlines()[-1]
    assert "step 4/4  loss " in line
    assert " images/s  MFU " in line
    assert " GiB  0 s left" in line


def test_a_loss_that_is_not_finite_does_not_stay_in_the_line(quiet_progress):
    """The running mean goes on with the next loss that is."""
    progress = quiet_progress()
    with progress.running(0, 3, 1):
        for step, loss in enumerate((2.0, float("nan"), 2.0), start=1):
            progress.stepped(step, loss)
    assert "loss 2.0000" in progress.output.getvalue()


def test_a_run_that_is_too_short_for_its_average_says_so(run_config, make_trainer, tmp_path):
    """With the steps the decay looks back on, those there are, and what the warm-up makes of it; or nothing."""
    said = {}
    for decay in (0.9999, 0.75):
        trainer = make_trainer(run_config(num_steps=4, ema_decay=decay), tmp_path / str(decay))
        trainer.train()
        said[decay] = " ".join(trainer.progress.output.getvalue().split())
    assert "training.ema_decay = 0.9999 averages the weights of about 10000 steps, and this run has 4" in said[0.9999]
    # After the last step, number 3 from 0, the decay is 4 / 13.
    assert "the warm-up of the decay ends at 0.3077, an average of about the last 1 steps" in said[0.9999]
    assert trainer.average.decay_at(3) == pytest.approx(4 / 13)
    assert "ema_decay" not in said[0.75]


def test_tensorboard_gets_the_metrics(run_config, make_trainer, tmp_path):
    """Read back with TensorBoard itself: every number of every row, validation in a group of its own."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = run_config(num_steps=4, checkpoint_every=2, num_validation_images=4, tensorboard=True)
    make_trainer(config, tmp_path / "run").train()
    events = reader.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    found = [(event.step, event.value) for event in events.Scalars("training/loss")]
    assert found == [(row["step"], pytest.approx(row["loss"])) for row in rows if "loss" in row]
    found = [(event.step, event.value) for event in events.Scalars("validation/loss")]
    assert found == [(row["step"], pytest.approx(row["validation_loss"])) for row in rows if "validation_loss" in row]
    tags = set(events.Tags()["scalars"])
    assert {"training/gradient_norm", "training/learning_rate", "training/images_per_second"} <= tags
    make_trainer(run_config(), tmp_path / "without").train()
    assert not (tmp_path / "without" / "tensorboard").exists()


def test_tensorboard_hides_steps_that_run_again(tmp_path):
    """A run resumed from step 2 shows what it did from there, not what the one before had done after it."""
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for resume_step, values in ((0, {1: 0.1, 2: 0.2, 3: 0.3}), (2, {3: 30.0})):
        log = EventFiles(tmp_path, resume_step=resume_step)
        for step, value in values.items():
            log.write(step=step, loss=value, nothing=None, word="x", infinite=float("inf"))
        log.close()
        # Files are read in the order of their names, which have whole seconds.
        time.sleep(1.1)
    events = reader.EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("training/loss")] == [
        (1, pytest.approx(0.1)),
        (2, pytest.approx(0.2)),
        (3, 30.0),
    ]
    assert events.Tags()["scalars"] == ["training/loss"]


def test_without_tensorboard_the_error_names_the_extra(run_config, make_trainer, tmp_path, monkeypatch):
    """Before training, and nothing is claimed."""
    real = builtins.__import__

    def without(name, *others, **more):
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *others, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingPackageError, match=r"pip install 'fluid-core\[tensorboard\]', or set"):
        make_trainer(run_config(tensorboard=True), tmp_path / "run")
    assert not (tmp_path / "run" / "config.json").exists()
