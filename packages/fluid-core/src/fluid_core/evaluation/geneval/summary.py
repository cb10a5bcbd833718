"""GenEval's score from verdicts: the share of right pictures per task, and the plain mean over the tasks."""

from collections.abc import Mapping, Sequence
from typing import Any

from fluid_core.errors import DataError
from fluid_core.evaluation.geneval.words import NUM_PICTURES, NUM_PROMPTS, TASKS


def summary(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of a list of results, as plain data.

    `overall` is the mean of the task scores, not of the pictures; tasks without pictures are left out of it. Raises
    `DataError` without results.
    """
    if not results:
        raise DataError("Expected at least one judged picture, found none.")
    by_task = {}
    for task in TASKS:
        verdicts = [bool(result["correct"]) for result in results if result["tag"] == task]
        if verdicts:
            by_task[task] = {
                "score": sum(verdicts) / len(verdicts),
                "num_correct": sum(verdicts),
                "num_pictures": len(verdicts),
            }
    by_prompt: dict[str, bool] = {}
    for result in results:
        by_prompt[result["metadata"]] = by_prompt.get(result["metadata"], False) or bool(result["correct"])
    return {
        "overall": sum(task["score"] for task in by_task.values()) / len(by_task),
        "by_task": by_task,
        "correct_pictures": sum(bool(result["correct"]) for result in results) / len(results),
        "prompts_with_a_correct_picture": sum(by_prompt.values()) / len(by_prompt),
        "num_prompts": len(by_prompt),
    }


def what_differs_from_the_official(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why figures would not compare with published ones, in sentences; nothing if they would, as far as counts say."""
    notes = []
    missing = [task for task in TASKS if not any(result["tag"] == task for result in results)]
    if missing:
        notes.append(f"The tasks {', '.join(missing)} have no pictures: overall is a mean of the others.")
    counts: dict[str, int] = {}
    for result in results:
        counts[result["metadata"]] = counts.get(result["metadata"], 0) + 1
    if len(counts) != NUM_PROMPTS:
        notes.append(f"{len(counts)} different prompts were judged; the official set has {NUM_PROMPTS}.")
    odd = sum(count != NUM_PICTURES for count in counts.values())
    if odd:
        notes.append(f"{odd} prompts have another number of pictures than {NUM_PICTURES}.")
    return notes
