"""The course of training: each kind of trouble is found in metrics that have it, and in no others."""

import math

import pytest
import torch

from fluid_core.diagnosis.evidence import Evidence, TrainingCourse
from fluid_core.diagnosis.finding import Verdict
from fluid_core.diagnosis.training_course import diagnose_training_course


def rows(num_rows=100, *, floor=0.2, validation=True, noise=0.02):
    """Metrics of a healthy run: a loss that falls to `floor`, with noise, and a validation loss beside it."""
    noises = torch.randn(num_rows, generator=torch.Generator().manual_seed(0)).tolist()
    made = []
    for index in range(num_rows):
        loss = floor + 0.8 * math.exp(-index / 15)
        made.append(
            {
                "step": 10 * (index + 1),
                "loss": loss * (1 + noise * noises[index]),
                "gradient_norm": 0.5 + 0.1 * noises[-index],
                "num_skipped_images": 0,
                "num_skipped_steps": 0,
            }
        )
        if validation and index % 10 == 9:
            made.append({"step": 10 * (index + 1), "validation_loss": 1.02 * loss})
    return made


def look(made, **others):
    """The finding about these rows."""
    course = TrainingCourse(rows=made, **{"ema_decay": 0.99, "batch_size": 32, **others})
    return diagnose_training_course(Evidence(course=course))


def test_a_healthy_run_has_no_trouble():
    """A falling loss, with noise, of a positive or negative kind."""
    finding = look(rows())
    assert finding.verdict is Verdict.NOT_FOUND
    assert finding.figures["signs"] == []
    assert "validation loss" in finding.found
    assert look([{**row, **({"loss": row["loss"] - 3} if "loss" in row else {})} for row in rows()]).advice == ()


def test_overfitting_is_found():
    """Validation loss rises again from the middle, while training loss goes on falling."""
    made = rows(floor=0.05, noise=0.0)
    for row in made:
        if "validation_loss" in row and row["step"] > 500:
            row["validation_loss"] += 0.002 * (row["step"] - 500) / 10
    finding = look(made)
    assert finding.figures["signs"] == ["overfitting"]
    assert "by heart" in finding.found
    assert finding.figures["least_validation_step"] in (500, 600)


def test_a_single_higher_validation_is_not_overfitting():
    """One bad measurement at the end may be chance."""
    made = rows()
    made[-1]["validation_loss"] *= 1.5
    assert look(made).verdict is Verdict.NOT_FOUND


def test_a_loss_that_does_not_move_is_found():
    """A loss that stays where it began, and one that rises."""
    for slope in (0.0, 1e-4):
        flat = [{"step": 10 * k, "loss": 1.0 + 0.001 * (k % 3) + slope * k} for k in range(1, 60)]
        assert look(flat).figures["signs"] == ["standing still"]
    assert look([{"step": k, "loss": 1.0} for k in range(1, 15)], ema_decay=None).figures["signs"] == []


def test_a_loss_that_jumps_about_is_not_called_still():
    """Where chance would hide a fall, nothing is said."""
    wild = [{"step": 10 * k, "loss": 1.0 + 5.0 * (k % 2)} for k in range(1, 60)]
    assert "standing still" not in look(wild).figures["signs"]


def test_spikes_are_found_with_their_steps():
    """Three spikes of the loss are told; one is not, and the fall of the first steps is none."""
    made = rows(validation=False)
    made[50]["loss"] *= 10
    assert look(made).verdict is Verdict.NOT_FOUND
    made[70]["loss"] *= 10
    made[80]["gradient_norm"] *= 10
    finding = look(made)
    assert finding.figures["signs"] == ["spikes"]
    assert finding.figures["spikes_of_loss"] == [510, 710]
    assert finding.figures["spikes_of_gradient_norm"] == [810]


def test_skipped_steps_and_pictures_are_found():
    """Counts of the last row, against steps and pictures so far."""
    made = rows(validation=False)
    made[-1]["num_skipped_steps"] = 20
    assert "20 of 1000 steps" in look(made).found
    made[-1]["num_skipped_images"] = 1000
    finding = look(made)
    assert "1000 of 32000 pictures" in finding.found
    made[-1].update(num_skipped_steps=1, num_skipped_images=100)
    assert look(made).verdict is Verdict.NOT_FOUND


def test_an_average_longer_than_the_run_is_found():
    """A decay of 0.9999 looks back on ten thousand steps; the run had a thousand."""
    finding = look(rows(), ema_decay=0.9999)
    assert finding.figures["signs"] == ["average longer than the run"]
    assert "ema_decay" in finding.found
    assert look(rows(), ema_decay=0.999).verdict is Verdict.NOT_FOUND
    assert look(rows(), ema_decay=0.9999, planned_steps=20_000).verdict is Verdict.NOT_FOUND


@pytest.mark.parametrize("made", [[], [{"step": 10, "loss": None}], [{"step": 10, "validation_loss": 0.5}]])
def test_hardly_any_metrics(made):
    """No rows, a loss that was not finite, a validation alone: no trouble is made up."""
    assert look(made, ema_decay=None).verdict in (Verdict.NOT_LOOKED, Verdict.NOT_FOUND)
    assert diagnose_training_course(Evidence()).verdict is Verdict.NOT_LOOKED
