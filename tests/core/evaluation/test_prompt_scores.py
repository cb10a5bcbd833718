"""Scores by task: counting, the mean over tasks, chance, and the way from prompts to pictures."""

import pytest
import torch

from fluid_core import FluidPipeline
from fluid_core.data.captioned_images import JudgedPrompt, Verdict
from fluid_core.data.facts import Facts, IncludedObjects
from fluid_core.errors import InvalidRequestError
from fluid_core.evaluation.prompt_scores import chance_scores, draw_prompts, judge_pictures
from fluid_core.exchange import DatasetContext


class BrightnessJudge:
    """A picture is right for a prompt if its mean is the number that the prompt says."""

    tasks = ("low", "high")

    def evaluation_prompts(self, *, num_per_task, seed):
        """Prompts that ask for 0 and 1."""
        return tuple(prompt(task, value) for task, value in (("low", 0), ("high", 1)) for _ in range(num_per_task))

    def judge(self, image, prompt):
        """Compare the mean."""
        found = float(image.mean())
        return Verdict(correct=abs(found - float(prompt.text)) < 1e-6, reason=f"mean {found}")


def prompt(task, value):
    """A prompt for a picture of a mean."""
    return JudgedPrompt(task=task, text=str(value), facts=Facts(include=(IncludedObjects(class_name="circle"),)))


def pictures(*values):
    """Pictures of one value each."""
    return torch.stack([torch.full((3, 4, 4), float(value)) for value in values])


def test_scores_are_shares_by_task_and_their_plain_mean():
    """One of three and one of one right: 1/3 and 1, and an overall score that weighs tasks, not prompts."""
    prompts = [prompt("low", 0), prompt("low", 0), prompt("low", 0), prompt("high", 1)]
    scores = judge_pictures(BrightnessJudge(), prompts, pictures(0, 1, 1, 1))
    assert scores.by_task == {"low": pytest.approx(1 / 3), "high": 1.0}
    assert scores.overall == pytest.approx(2 / 3)
    assert [verdict.correct for verdict in scores.verdicts] == [True, False, False, True]
    assert scores.verdicts[1].reason == "mean 1.0"


def test_chance_is_what_pictures_at_random_score():
    """With a quarter of the pictures bright, bright prompts are met about a quarter of the time; seeds repeat it."""
    judge = BrightnessJudge()
    prompts = judge.evaluation_prompts(num_per_task=400, seed=0)
    scores = chance_scores(judge, prompts, pictures(0, 0, 0, 1), seed=0)
    assert scores.by_task["low"] == pytest.approx(0.75, abs=0.07)
    assert scores.by_task["high"] == pytest.approx(0.25, abs=0.07)
    assert scores == chance_scores(judge, prompts, pictures(0, 0, 0, 1), seed=0)


def test_true_pictures_of_shapes_are_right(small_model):
    """The data set's own judge gives full marks to pictures that were drawn for their prompts, none to empty ones."""
    catalog = small_model().catalog
    context = DatasetContext(image_size=(32, 32), split="validation")
    data = catalog.build("dataset", "shapes", {"num_validation_examples": 40}, context)
    prompts = []
    for index in range(40):
        drawn = data.example(index)
        prompts.append(JudgedPrompt(task=drawn.task, text=drawn.caption, facts=drawn.facts))
    images = torch.stack([data[index].image for index in range(40)])
    assert judge_pictures(data, prompts, images).overall > 0.97
    assert judge_pictures(data, prompts, torch.ones_like(images)).overall == 0.0


def test_pictures_are_drawn_in_batches_and_in_the_range_of_the_judge(small_model):
    """Batches of two draw what one batch of five draws, in [-1, 1], and settings reach the pipeline."""
    pipeline = FluidPipeline(small_model())
    prompts = [prompt("low", value) for value in range(5)]
    together = draw_prompts(pipeline, prompts, seed=3, num_inference_steps=2)
    in_batches = draw_prompts(pipeline, prompts, seed=3, num_inference_steps=2, batch_size=2)
    torch.testing.assert_close(together, in_batches, atol=1e-4, rtol=1e-4)
    expected = pipeline([p.text for p in prompts], seed=3, num_inference_steps=2, output_type="pt").images
    torch.testing.assert_close(together, expected * 2 - 1)
    assert float(together.min()) < -0.5


def test_nothing_to_score_is_refused(small_model):
    """Without prompts there is no score."""
    with pytest.raises(InvalidRequestError, match="at least one prompt"):
        judge_pictures(BrightnessJudge(), [], pictures(1)[:0])
    with pytest.raises(InvalidRequestError, match="at least one prompt"):
        draw_prompts(FluidPipeline(small_model()), [], seed=0)
