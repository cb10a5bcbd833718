"""Trouble in the course of training, as far as `metrics.jsonl` tells."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from fluid_core.diagnosis.evidence import Evidence, TrainingCourse
from fluid_core.diagnosis.finding import Finding, Verdict, not_looked, percent, several
from fluid_core.diagnosis.uncertainty import NUM_ERRORS
from fluid_core.training.step.moving_average import too_short_for_average

RISE = 0.02
"""How far the validation loss has risen above its least value to count, as a share of it.

Validation draws the same masks and noise every time, so that it moves by less than a percent from chance.
"""

LEAST_FALL = 0.02
"""How far the training loss must fall between the first and the last fifth of a run, as a share of it."""

FEWEST_ROWS = 20
"""Logged steps below which nothing is said about standing still, and about spikes."""

SPIKE = 3.0
"""A loss, or gradient norm, so many times the median of those around it is a spike."""

MANY_SPIKES = 3
"""One or two are in most long runs, and do no harm; from here on they are told."""

SKIPPED_STEPS = 0.001
"""Share of steps left out because of losses or gradients that are not finite; one in a thousand costs nothing."""

SKIPPED_PICTURES = 0.01
"""Share of pictures that could not be used."""

_AROUND = 10


def diagnose_training_course(evidence: Evidence) -> Finding:
    """Look for overfitting, standing still, spikes, steps and pictures left out, and an average that is too long."""
    course = evidence.course
    if course is None or not course.rows:
        return not_looked(evidence.why_no_course)
    trained = [row for row in course.rows if "loss" in row]
    validated = [row for row in course.rows if row.get("validation_loss") is not None]
    seen = [
        one
        for one in (
            _overfitting(trained, validated),
            _standing_still(trained),
            _spikes(trained),
            _left_out(trained, course),
            _short_average(trained, course),
        )
        if one is not None
    ]
    figures = {key: value for one in seen for key, value in one["figures"].items()}
    summary = _summary(trained, validated)
    return Finding(
        verdict=Verdict.FOUND if seen else Verdict.NOT_FOUND,
        found=several([summary, *(one["words"] for one in seen)]),
        expected=(
            f"A training loss that falls, a validation loss within {percent(RISE)} of its least, fewer than "
            f"{MANY_SPIKES} spikes, hardly anything left out, and an average of weights that fits into the run."
        ),
        advice=tuple(one["advice"] for one in seen),
        figures={
            **figures,
            "num_rows": len(trained),
            "num_validations": len(validated),
            "last_step": _last_step(course.rows),
            "signs": [one["sign"] for one in seen],
        },
    )


def _last_step(rows: Sequence[Mapping[str, Any]]) -> int:
    return max((int(row["step"]) for row in rows), default=0)


def _summary(trained: Sequence[Mapping[str, Any]], validated: Sequence[Mapping[str, Any]]) -> str:
    losses = [row["loss"] for row in trained if row["loss"] is not None]
    if not losses:
        return "No training loss was logged."
    words = f"{_last_step(trained)} steps; training loss {losses[0]:.4g} at first and {losses[-1]:.4g} at last"
    if validated:
        words += f", validation loss {validated[-1]['validation_loss']:.4g} at step {validated[-1]['step']}"
    return words + "."


def _overfitting(trained: Sequence[Mapping[str, Any]], validated: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Validation loss above its least, twice in a row at the end, while training loss went on falling."""
    if len(validated) < 3:
        return None
    values = [float(row["validation_loss"]) for row in validated]
    least = min(values)
    at = int(validated[values.index(least)]["step"])
    # Losses may be below zero, as likelihoods of vectors are.
    line = least + RISE * abs(least)
    before = [float(row["loss"]) for row in trained if row["loss"] is not None and abs(row["step"] - at) <= at * 0.1]
    after = [float(row["loss"]) for row in trained[-max(3, len(trained) // 10) :] if row["loss"] is not None]
    if min(values[-2:]) <= line or values.index(least) >= len(values) - 2 or not before or not after:
        return None
    if statistics.fmean(after) >= statistics.fmean(before):
        return None
    return {
        "sign": "overfitting",
        "words": (
            f"Validation loss was least, {least:.4g}, at step {at} and is {values[-1]:.4g} now, while training loss "
            f"fell from {statistics.fmean(before):.4g} to {statistics.fmean(after):.4g}: the model learns its data by "
            "heart."
        ),
        "advice": f"More data, dropout, a smaller model, or an earlier end (step {at}).",
        "figures": {"least_validation_loss": least, "least_validation_step": at, "last_validation_loss": values[-1]},
    }


def _standing_still(trained: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    losses = [float(row["loss"]) for row in trained if row["loss"] is not None]
    fifth = len(losses) // 5
    if len(losses) < FEWEST_ROWS:
        return None
    first, last = losses[:fifth], losses[-fifth:]
    start = statistics.fmean(first)
    fall = start - statistics.fmean(last)
    if fall > LEAST_FALL * abs(start):
        return None
    # A loss that jumps about by more than the line could have fallen without anyone seeing it.
    error = math.hypot(statistics.stdev(first), statistics.stdev(last)) / math.sqrt(fifth)
    if fall + NUM_ERRORS * error > 0.5 * abs(start):
        return None
    return {
        "sign": "standing still",
        "words": (
            f"Training loss does not move: {start:.4g} over the first fifth of the run, {statistics.fmean(last):.4g} "
            f"over the last ({percent(fall / abs(start) if start else 0.0)} less)."
        ),
        "advice": (
            "Look at the learning rate (gradient_norm and learning_rate in metrics.jsonl): too small and nothing "
            "moves, too large and it jumps about. Try a few pictures first: they must be learned by heart."
        ),
        "figures": {"fall": fall, "fall_error": error, "loss_of_first_fifth": start},
    }


def _spikes(trained: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if len(trained) < FEWEST_ROWS:
        return None
    found = {name: _spiking_steps(trained, name) for name in ("loss", "gradient_norm")}
    steps = sorted(set(found["loss"]) | set(found["gradient_norm"]))
    if len(steps) < MANY_SPIKES:
        return None
    told = ", ".join(map(str, steps[:5])) + (" and others" if len(steps) > 5 else "")
    return {
        "sign": "spikes",
        "words": (
            f"{len(found['loss'])} spikes of the loss and {len(found['gradient_norm'])} of the gradient norm, more "
            f"than {SPIKE:g} times what is around them, at steps {told}."
        ),
        "advice": (
            "Lower training.learning_rate, lengthen training.warmup_steps, or clip gradients closer "
            "(training.gradient_clip_norm); in half precision try bfloat16 or float32."
        ),
        "figures": {"spikes_of_loss": found["loss"][:50], "spikes_of_gradient_norm": found["gradient_norm"][:50]},
    }


def _spiking_steps(rows: Sequence[Mapping[str, Any]], name: str) -> list[int]:
    # Losses below zero have no multiple that means anything.
    known = [(int(row["step"]), float(row[name])) for row in rows if (row.get(name) or 0.0) > 0.0]
    steps = []
    # The first steps fall steeply, whoever trains.
    for index in range(_AROUND, len(known)):
        around = [value for _, value in known[max(0, index - _AROUND) : index + _AROUND + 1]]
        if known[index][1] > SPIKE * statistics.median(around):
            steps.append(known[index][0])
    return steps


def _left_out(trained: Sequence[Mapping[str, Any]], course: TrainingCourse) -> dict[str, Any] | None:
    if not trained:
        return None
    last = trained[-1]
    num_steps = int(last["step"])
    skipped_steps = int(last.get("num_skipped_steps") or 0)
    skipped_pictures = int(last.get("num_skipped_images") or 0)
    seen = num_steps * (course.batch_size or 1)
    words, advice = [], []
    if num_steps and skipped_steps / num_steps > SKIPPED_STEPS:
        words.append(
            f"{skipped_steps} of {num_steps} steps were left out because a loss or gradient was not finite "
            f"({percent(skipped_steps / num_steps)})."
        )
        advice.append("Lower the learning rate, or train in bfloat16 or float32.")
    if seen and skipped_pictures / seen > SKIPPED_PICTURES:
        words.append(f"{skipped_pictures} of {seen} pictures could not be used; skipped.jsonl says which and why.")
        advice.append("Repair or leave out the pictures that skipped.jsonl names.")
    if not words:
        return None
    return {
        "sign": "left out",
        "words": " ".join(words),
        "advice": " ".join(advice),
        "figures": {"num_skipped_steps": skipped_steps, "num_skipped_images": skipped_pictures},
    }


def _short_average(trained: Sequence[Mapping[str, Any]], course: TrainingCourse) -> dict[str, Any] | None:
    num_steps = max(_last_step(trained), course.planned_steps or 0)
    if course.ema_decay is None or not 0.0 < course.ema_decay < 1.0 or not num_steps:
        return None
    words = too_short_for_average(course.ema_decay, num_steps)
    if words is None:
        return None
    return {
        "sign": "average longer than the run",
        "words": words,
        "advice": "Compare the pictures of model-raw: if they are better, train longer or lower training.ema_decay.",
        "figures": {"ema_decay": course.ema_decay},
    }
