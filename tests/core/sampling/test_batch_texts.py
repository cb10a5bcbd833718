"""The text of a run takes no more memory than the encoder that would be kept without it."""

import pytest
import torch

from fluid_core import FluidPipeline
from fluid_core.errors import PromptError
from fluid_core.sampling_run import batch_texts
from fluid_core.sampling_run.batch_texts import BatchTexts, encode_batch
from fluid_core.sampling_run.plan import plan_batches, plan_images
from fluid_core.sampling_run.prompts_file import Prompt


def planned(num_prompts, negative=None):
    """Batches of two pictures with prompts of their own."""
    prompts = [Prompt(text=f"picture {number}") for number in range(num_prompts)]
    return plan_batches(plan_images(prompts, images_per_prompt=1, seed=0, negative_prompt=negative), 2)


def assert_same(found, expected):
    """Equal text of two batches."""
    for one, other in ((found.prompts, expected.prompts), (found.negatives, expected.negatives)):
        assert (one is None) == (other is None)
        if one is not None:
            assert torch.equal(one.states, other.states)
            assert torch.equal(one.mask, other.mask)


@pytest.mark.parametrize("negative", [None, "dark"])
def test_short_runs_let_the_encoder_go(small_model, negative):
    """A few prompts are smaller than the encoder: they are held, and nothing is encoded any more."""
    pipeline, batches = FluidPipeline(small_model()), planned(4, negative)
    expected = [encode_batch(pipeline, batch) for batch in batches]
    texts = BatchTexts(pipeline, batches)
    with pytest.raises(PromptError, match="let go"):
        pipeline.encode_prompts(["more"])
    for number, one in enumerate(expected):
        assert_same(texts[number], one)


def test_long_runs_keep_it(small_model, monkeypatch):
    """More text than the encoder takes: no more than that is ever held, and batches are read again, the same ones."""
    pipeline, batches = FluidPipeline(small_model()), planned(6)
    expected = [encode_batch(pipeline, batch) for batch in batches]
    size = sum(part.nbytes for part in pipeline.model.text_encoder.parameters())
    monkeypatch.setattr(batch_texts.BatchText, "num_bytes", property(lambda _: size // 2))
    texts = BatchTexts(pipeline, batches)
    assert texts._held is None
    pipeline.encode_prompts(["more"])
    for number, one in enumerate(expected):
        assert_same(texts[number], one)


def test_the_size_of_a_text_is_that_of_its_tensors(small_model):
    """States and masks, of negative prompts too."""
    pipeline = FluidPipeline(small_model())
    (batch,) = planned(2, negative="dark")
    text = encode_batch(pipeline, batch)
    parts = [text.prompts.states, text.prompts.mask, text.negatives.states, text.negatives.mask]
    assert text.num_bytes == sum(part.numel() * part.element_size() for part in parts)
