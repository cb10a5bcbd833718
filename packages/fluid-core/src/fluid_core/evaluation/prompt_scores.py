"""Scores by task for data sets whose pictures can be judged, in the manner of GenEval (paper, section 4)."""

from collections.abc import Callable, Sequence

import attrs
import torch
from jaxtyping import Float
from torch import Tensor

from fluid_core.data.captioned_images import JudgedPrompt, JudgedPrompts, Verdict

DrawImages = Callable[[list[str]], Float[Tensor, "images 3 height width"]]


@attrs.frozen(kw_only=True)
class PromptScores:
    """Share of correct pictures by task, and the plain mean over tasks, as GenEval defines its overall score."""

    by_task: dict[str, float]
    verdicts: tuple[Verdict, ...]

    @property
    def overall(self) -> float:
        """Mean of the task scores."""
        return sum(self.by_task.values()) / len(self.by_task)


def score_prompts(
    judge: JudgedPrompts, prompts: Sequence[JudgedPrompt], draw: DrawImages, *, batch_size: int = 96
) -> PromptScores:
    """Judge one picture per prompt. `draw` makes images in [-1, 1] for a list of prompt texts."""
    verdicts: list[Verdict] = []
    for first in range(0, len(prompts), batch_size):
        batch = list(prompts[first : first + batch_size])
        images = draw([prompt.text for prompt in batch])
        verdicts += [judge.judge(image, prompt) for image, prompt in zip(images, batch, strict=True)]
    return PromptScores(by_task=_by_task(prompts, verdicts), verdicts=tuple(verdicts))


def chance_scores(
    judge: JudgedPrompts,
    prompts: Sequence[JudgedPrompt],
    pictures: Sequence[Float[Tensor, "3 height width"]],
    *,
    seed: int,
) -> PromptScores:
    """What drawing without reading scores: each prompt is judged against pictures of the data picked at random."""
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(len(pictures), (len(prompts),), generator=generator).tolist()
    verdicts = [judge.judge(pictures[pick], prompt) for pick, prompt in zip(picks, prompts, strict=True)]
    return PromptScores(by_task=_by_task(prompts, verdicts), verdicts=tuple(verdicts))


def _by_task(prompts: Sequence[JudgedPrompt], verdicts: Sequence[Verdict]) -> dict[str, float]:
    correct: dict[str, list[bool]] = {}
    for prompt, verdict in zip(prompts, verdicts, strict=True):
        correct.setdefault(prompt.task, []).append(verdict.correct)
    return {task: sum(values) / len(values) for task, values in correct.items()}
