"""Losses and gradients that are not finite: named, written down, and left out if that is asked for."""

import json
import os

import attrs
import pytest
import torch

from fluid_core.errors import NonFiniteLossError, OutputError
from fluid_core.training.sight.metrics import read_metrics
from fluid_core.training.step.non_finite import keep_batch, num_left_out


def spoil(trainer, steps, how):
    """Make the head's loss not finite in some steps (from 1); `how` is `loss` or `gradient`."""
    head_loss = trainer.model.head.loss
    culprit = trainer.model.head.network.condition_projection.bias

    def loss(condition, target, *, random):
        found = head_loss(condition, target, random=random)
        if trainer.step + 1 not in steps:
            return found
        # The square root of zero is zero; its derivative is not finite.
        bad = (culprit * 0.0).sum().sqrt() if how == "gradient" else torch.tensor(float("nan"))
        return attrs.evolve(found, total=found.total + bad)

    trainer.model.head.loss = loss


def told(trainer):
    """What was printed, in one line."""
    return " ".join(trainer.progress.output.getvalue().split())


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ("loss", "the loss is nan, expected a finite number"),
        ("gradient", "the gradient of head.network.condition_projection.bias is not finite"),
    ],
)
def test_a_step_is_left_out(how, named, run_config, make_trainer, tmp_path):
    """Weights, averages and moments are those of a run that had the step's place in time and nothing else of it."""
    trainer = make_trainer(run_config(num_steps=6, on_non_finite="skip"), tmp_path / "run")
    spoil(trainer, {3, 5}, how)
    states = []
    train_step = trainer._train_step

    def watching(*arguments):
        before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
        average = {name: p.clone() for name, p in trainer.average.weights.items()}
        result = train_step(*arguments)
        same = all(torch.equal(p, before[name]) for name, p in trainer.model.named_parameters())
        kept = all(torch.equal(p, average[name]) for name, p in trainer.average.weights.items())
        states.append((result is None, same, kept))
        return result

    trainer._train_step = watching
    assert trainer.train().num_steps == 6
    moved, left_out = (False, False, False), (True, True, True)
    assert states == [moved, moved, left_out, moved, left_out, moved]
    counts = {state["step"].item() for state in trainer.optimizer.state.values()}
    assert counts == {4.0}
    message = told(trainer)
    assert f"Step 3: {named}" in message
    assert "The step is left out (1 in a row, of at most 10); its batch is in" in message
    assert "2 in a row" not in message
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 4, 6]
    assert [row["num_skipped_steps"] for row in rows] == [0, 0, 1, 2]
    for step in (3, 5):
        kept = json.loads((tmp_path / "run" / "non_finite" / f"step-0000000{step}.json").read_text())
        assert kept["step"] == step
        assert named in kept["problem"]
        assert len(kept["items"]) == len(kept["captions"]) == 4
        assert [trainer.train_data[item].caption for item in kept["items"]] == kept["captions"]


def test_too_many_in_a_row_end_the_run(run_config, make_trainer, tmp_path):
    """Two are left out, the third ends it; taken steps between start the count anew."""
    trainer = make_trainer(run_config(num_steps=9, on_non_finite="skip", max_skipped_steps=2), tmp_path / "run")
    spoil(trainer, {1, 2, 4, 5, 6}, "loss")
    with pytest.raises(NonFiniteLossError, match=r"Step 6: the loss is nan.*It is number 3 in a row, of at most 2"):
        trainer.train()
    assert trainer.step == 5


def test_the_first_tensor_that_is_not_finite_is_named(run_config, make_trainer, tmp_path):
    """An overflow deep in the backbone is told by the module it comes from, not only by the loss it ends in."""
    trainer = make_trainer(run_config(), tmp_path / "run")
    with torch.no_grad():
        trainer.model.transformer.blocks[1].feed_forward.hidden.weight.fill_(3e38)
    with pytest.raises(NonFiniteLossError) as caught:
        trainer.train()
    assert "of the loss of DiffusionHead is nan" in str(caught.value)
    assert "the first tensor that is not is the output of transformer.blocks.1.feed_forward.hidden)" in str(
        caught.value
    )
    assert "All weights are finite" in str(caught.value)


def test_an_infinite_loss_with_finite_gradients_is_noticed(run_config, make_trainer, tmp_path):
    """The sum may overflow where no gradient does: the step must not be taken in silence."""
    trainer = make_trainer(run_config(), tmp_path / "run")
    head_loss = trainer.model.head.loss
    trainer.model.head.loss = lambda condition, target, *, random: attrs.evolve(
        head_loss(condition, target, random=random), total=head_loss(condition, target, random=random).total + 3e38
    )
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    with pytest.raises(NonFiniteLossError, match="Step 1: the loss is inf"):
        trainer.train()
    assert all(torch.equal(p, before[name]) for name, p in trainer.model.named_parameters())


def test_one_part_of_a_batch_is_enough(run_config, make_trainer, tmp_path):
    """With accumulation the part that is not finite spoils the step, whichever it is."""
    trainer = make_trainer(run_config(accumulation_steps=2), tmp_path / "run")
    head_loss, calls = trainer.model.head.loss, []

    def loss(condition, target, *, random):
        calls.append(len(target))
        found = head_loss(condition, target, random=random)
        # The first call counts operations; the third is the second part.
        return attrs.evolve(found, total=found.total * (float("nan") if len(calls) == 3 else 1.0))

    trainer.model.head.loss = loss
    with pytest.raises(NonFiniteLossError, match="Step 1: the loss is nan"):
        trainer.train()


def test_a_full_disk_does_not_hide_the_message(tmp_path, monkeypatch):
    """Where the batch can not be written down, that is said beside the problem."""

    def full(*_):
        raise OutputError("no room")

    monkeypatch.setattr("fluid_core.training.step.non_finite.write_json", full)
    place = keep_batch(tmp_path, step=3, problem="nan", captions=["a"], items=None)
    assert place == "its batch could not be written down (no room)"
    assert os.listdir(tmp_path) == []
    assert num_left_out(tmp_path, until=9) == 0


TWO_PROCESSES = """
import sys
import attrs
from pathlib import Path
from fluid_core import Trainer
from fluid_core.configuration import config_from_json

trainer = Trainer(config_from_json(Path(sys.argv[1]).read_text()), sys.argv[2])
head_loss = trainer.model.head.loss


def loss(condition, target, *, random):
    found = head_loss(condition, target, random=random)
    bad = trainer.step == 1 and trainer.processes.rank == 1
    return attrs.evolve(found, total=found.total * (float("nan") if bad else 1.0))


trainer.model.head.loss = loss
trainer.train()
"""


@pytest.mark.slow
def test_what_one_process_meets_all_leave_out(run_config, run_in_processes, tmp_path):
    """Only the second process sees a NaN: the first tells of it, and both go on with equal weights."""
    config = run_config(num_steps=4, on_non_finite="skip")
    finished = run_in_processes(TWO_PROCESSES, config, tmp_path / "run", num_processes=2)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stderr.count("Step 2: the loss is nan") == 1
    rows = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert [(row["step"], row["num_skipped_steps"]) for row in rows] == [(1, 0), (3, 1), (4, 1)]
    kept = json.loads((tmp_path / "run" / "non_finite" / "step-00000002.json").read_text())
    assert len(kept["items"]) == len(kept["captions"]) == 4
