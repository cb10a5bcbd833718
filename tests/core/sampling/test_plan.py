"""Which picture has which prompt and seed."""

import pytest

from fluid_core import FluidPipeline
from fluid_core.errors import InvalidRequestError
from fluid_core.sampling_run.plan import fresh_seed, plan_batches, plan_images
from fluid_core.sampling_run.prompts_file import LARGEST_SEED, Prompt


def planned(*prompts, images_per_prompt=1, seed=3, negative_prompt=None):
    """A plan for prompts, given as text or in full."""
    full = [Prompt(text=one) if isinstance(one, str) else one for one in prompts]
    return plan_images(full, images_per_prompt=images_per_prompt, seed=seed, negative_prompt=negative_prompt)


def test_seeds_are_those_of_the_pipeline(saved_model):
    """A run draws what one call with the same seed draws, and more prompts change nothing for the first ones."""
    images = planned("a", "b", images_per_prompt=2)
    pipeline = FluidPipeline.from_pretrained(saved_model)
    call = pipeline(["a", "b"], num_images_per_prompt=2, seed=3, num_inference_steps=1, output_type="tokens")
    assert tuple(image.seed for image in images) == call.seeds
    assert [(image.index, image.name, image.prompt) for image in images] == [
        (0, "00000", "a"),
        (1, "00001", "a"),
        (2, "00002", "b"),
        (3, "00003", "b"),
    ]
    assert [one.seed for one in planned("x", "y", "z", "v", "w")][:4] == [image.seed for image in images]
    assert {image.seed for image in planned("a", seed=4)}.isdisjoint(call.seeds)


def test_prompts_bring_their_own():
    """A seed of a prompt counts up over its pictures and moves no other; its negative prompt goes before the run's."""
    own = Prompt(text="b", seed=70, negative="dark", metadata={"tag": 1}, source="f, line 1")
    images = planned("a", own, "c", images_per_prompt=2, negative_prompt="blurry")
    without = planned("a", "b", "c", images_per_prompt=2)
    assert [image.seed for image in images[2:4]] == [70, 71]
    assert [images[i].seed for i in (0, 1, 4, 5)] == [without[i].seed for i in (0, 1, 4, 5)]
    assert [image.negative_prompt for image in images] == ["blurry"] * 2 + ["dark"] * 2 + ["blurry"] * 2
    assert (images[2].metadata, images[2].source) == ({"tag": 1}, "f, line 1")


def test_batches_hold_every_picture_once():
    """None is larger than asked for, and none mixes pictures with and without a negative prompt."""
    prompts = [Prompt(text=str(i), negative="dark" if i % 3 == 0 else None) for i in range(11)]
    images = planned(*prompts)
    for batch_size in (1, 2, 4, 50):
        batches = plan_batches(images, batch_size)
        assert sorted(image.index for batch in batches for image in batch) == list(range(11))
        assert all(0 < len(batch) <= batch_size for batch in batches)
        assert all(len({image.negative_prompt is None for image in batch}) == 1 for batch in batches)


def test_numbers_out_of_range_are_refused():
    """No pictures, no batch, a seed that is none, and one that can not be counted up from."""
    with pytest.raises(InvalidRequestError, match="--images-per-prompt, found 0"):
        planned("a", images_per_prompt=0)
    with pytest.raises(InvalidRequestError, match="found -1"):
        planned("a", seed=-1)
    with pytest.raises(InvalidRequestError, match="no room"):
        planned(Prompt(text="a", seed=LARGEST_SEED), images_per_prompt=2)
    assert planned(Prompt(text="a", seed=LARGEST_SEED))[0].seed == LARGEST_SEED
    with pytest.raises(InvalidRequestError, match="--batch-size, found 0"):
        plan_batches(planned("a"), 0)


def test_fresh_seeds_are_seeds():
    """They can be given as --seed, and differ."""
    seeds = {fresh_seed() for _ in range(20)}
    assert len(seeds) > 1
    assert all(0 <= seed <= LARGEST_SEED for seed in seeds)
