"""Scores by task for data sets whose pictures can be judged, in the manner of GenEval (paper, section 4)."""

from collections.abc import Sequence
from typing import Any

import attrs
import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.data.captioned_images import JudgedPrompt, JudgedPrompts, Verdict
from fluid_core.errors import InvalidRequestError
from fluid_core.pipeline import FluidPipeline


@attrs.frozen(kw_only=True)
class PromptScores:
    """Share of correct pictures by task, and the plain mean over tasks, as GenEval defines its overall score."""

    by_task: dict[str, float]
    verdicts: tuple[Verdict, ...]

    @property
    def overall(self) -> float:
        """Mean of the task scores."""
        return sum(self.by_task.values()) / len(self.by_task)


def draw_prompts(
    pipeline: FluidPipeline, prompts: Sequence[JudgedPrompt], *, seed: int, batch_size: int = 96, **settings: Any
) -> Float[Tensor, "prompts 3 height width"]:
    """One picture per prompt, in [-1, 1]; `settings` are arguments of the pipeline, such as `guidance_scale`.

    Raises `InvalidRequestError` without prompts, and what the pipeline raises.
    """
    _check_any(prompts)
    generator = torch.Generator().manual_seed(seed)
    batches = []
    for first in range(0, len(prompts), batch_size):
        texts = [prompt.text for prompt in prompts[first : first + batch_size]]
        batches.append(pipeline(texts, generator=generator, output_type="pt", **settings).images)
    return torch.cat(batches) * 2.0 - 1.0


def judge_pictures(
    judge: JudgedPrompts, prompts: Sequence[JudgedPrompt], pictures: Float[Tensor, "prompts 3 height width"]
) -> PromptScores:
    """Judge each picture (in [-1, 1]) against the prompt at its place. Raises `InvalidRequestError` without prompts."""
    _check_any(prompts)
    verdicts = [judge.judge(picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)]
    return PromptScores(by_task=_by_task(prompts, verdicts), verdicts=tuple(verdicts))


def chance_scores(
    judge: JudgedPrompts,
    prompts: Sequence[JudgedPrompt],
    pictures: Float[Tensor, "pictures 3 height width"],
    *,
    seed: int,
) -> PromptScores:
    """What drawing without reading scores: each prompt is judged against one of `pictures` picked at random."""
    picks = torch.randint(len(pictures), (len(prompts),), generator=torch.Generator().manual_seed(seed))
    return judge_pictures(judge, prompts, pictures[picks])


def _check_any(prompts: Sequence[JudgedPrompt]) -> None:
    if not prompts:
        raise InvalidRequestError("Expected at least one prompt to score, found none.")


def _by_task(prompts: Sequence[JudgedPrompt], verdicts: Sequence[Verdict]) -> dict[str, float]:
    correct: dict[str, list[bool]] = {}
    for prompt, verdict in zip(prompts, verdicts, strict=True):
        correct.setdefault(prompt.task, []).append(verdict.correct)
    return {task: sum(values) / len(values) for task, values in correct.items()}
