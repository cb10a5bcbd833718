"""`FluidPipeline`: prompts in, images out."""

import numpy as np
import pytest
import torch
from PIL import Image

from fluid_core import FluidPipeline
from fluid_core.configuration import BackboneConfig
from fluid_core.errors import IncompatibleComponentsError, InvalidRequestError, PromptError
from fluid_core.pipeline.image_seeds import image_seeds
from fluid_orders import HaltonOrder


@pytest.fixture
def pipeline(small_model):
    """A pipeline over 9 continuous tokens in random order."""
    return FluidPipeline(small_model())


def generator(seed):
    """A generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def test_output_types_hold_the_same_pictures(pipeline):
    """PIL images, arrays and tensors in [0, 1] show the same; tokens alone come undecoded, and decode to them."""
    results = {
        kind: pipeline(["a", "b"], seed=1, num_inference_steps=2, output_type=kind) for kind in ("pil", "np", "pt")
    }
    tensor, array = results["pt"].images, results["np"].images
    assert tensor.shape == (2, 3, 24, 24)
    assert array.shape == (2, 24, 24, 3)
    assert float(tensor.min()) >= 0.0
    assert float(tensor.max()) <= 1.0
    assert np.array_equal(array, tensor.permute(0, 2, 3, 1).numpy())
    for picture, values in zip(results["pil"].images, array, strict=True):
        assert isinstance(picture, Image.Image)
        assert np.array_equal(np.asarray(picture), (values * 255).round().astype(np.uint8))
    only_tokens = pipeline(["a", "b"], seed=1, num_inference_steps=2, output_type="tokens")
    assert only_tokens.images is None
    assert torch.equal(only_tokens.tokens, results["pt"].tokens)
    assert torch.equal(pipeline.decode(only_tokens.tokens), tensor)


def test_one_prompt_gives_one_image(pipeline):
    """A plain string is a list of one; the default output is PIL."""
    result = pipeline("a red circle", num_inference_steps=1)
    assert [picture.size for picture in result.images] == [(24, 24)]
    assert result.tokens.shape == (1, 9, 192)
    assert len(result.seeds) == 1


def test_images_per_prompt_stand_in_a_row(pipeline):
    """Images of a prompt differ from each other and stand together, prompt by prompt."""
    seeds = [1, 2, 3, 4]
    result = pipeline(["a", "bb"], num_images_per_prompt=2, seed=seeds, num_inference_steps=2, output_type="pt")
    for index, prompt in enumerate(["a", "a", "bb", "bb"]):
        alone = pipeline(prompt, seed=[seeds[index]], num_inference_steps=2, output_type="pt")
        torch.testing.assert_close(alone.images[0], result.images[index], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(result.images[0], result.images[1], atol=1e-3)


def test_a_seed_decides_the_pictures(pipeline):
    """The same seed gives the same, another seed others, and no seed others every time, with seeds to repeat them."""
    call = {"num_inference_steps": 2, "output_type": "pt"}
    first = pipeline(["a", "a"], seed=7, **call)
    assert torch.equal(first.images, pipeline(["a", "a"], seed=7, **call).images)
    assert first.seeds[0] != first.seeds[1]
    assert not torch.equal(first.images[0], first.images[1])
    assert not torch.equal(first.images, pipeline(["a", "a"], seed=8, **call).images)
    unseeded = pipeline(["a", "a"], **call)
    assert unseeded.seeds != pipeline(["a", "a"], **call).seeds
    assert torch.equal(unseeded.images, pipeline(["a", "a"], seed=unseeded.seeds, **call).images)


@pytest.mark.parametrize(
    ("seed", "generator", "message"),
    [
        ("7", None, "whole number from 0 to .*, found '7'"),
        (b"7", None, "found b'7'"),
        ([1.5], None, "found 1.5"),
        (np.array([1.5]), None, "found 1.5"),
        (True, None, "found True"),
        (None, 7, "a torch.Generator, or a list of them, found one of type int"),
        (None, [None], "found one of type NoneType"),
    ],
)
def test_what_is_no_seed_is_refused(seed, generator, message):
    """Texts, fractions and truth values among them."""
    unchecked = getattr(image_seeds, "__wrapped__", image_seeds)
    with pytest.raises(InvalidRequestError, match=message):
        unchecked(1, seed, generator)


def test_seeds_of_numpy_and_torch_are_seeds(pipeline):
    """One or several, as they come out of a computation."""
    call = {"output_type": "pt", "num_inference_steps": 2}
    expected = pipeline(["a", "b"], seed=7, **call)
    assert torch.equal(pipeline(["a", "b"], seed=np.int64(7), **call).images, expected.images)
    for seeds in (np.array(expected.seeds), torch.tensor(expected.seeds)):
        assert torch.equal(pipeline(["a", "b"], seed=seeds, **call).images, expected.images)
    assert torch.equal(pipeline(["a", "b"], seed=torch.tensor(7), **call).images, expected.images)


def test_a_model_in_training_evaluates_while_it_draws(small_model):
    """Nothing is dropped out, no global random number is drawn, and afterwards every part trains again that did."""
    model = small_model(backbone=BackboneConfig(width=32, depth=2, num_heads=2, aligner_depth=1, dropout=0.5))
    pipeline = FluidPipeline(model)
    call = {"seed": 7, "num_inference_steps": 2, "output_type": "pt", "guidance_scale": 2.0}
    expected = pipeline("a", **call).images
    model.train()
    before = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    assert torch.equal(pipeline("a", **call).images, expected)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == before
    assert model.training
    picture = torch.rand(3, 24, 24, generator=generator(0))
    for _ in range(2):
        found = pipeline.variation(picture, "a", **call).images
        assert torch.equal(found, pipeline.variation(picture, "a", **call).images)


def test_the_first_images_of_a_seed_stay_when_more_are_asked_for(pipeline):
    """An image's own seed follows from its place, so asking for more images changes none."""
    few = pipeline("a", seed=7, num_images_per_prompt=2, num_inference_steps=1)
    many = pipeline("a", seed=7, num_images_per_prompt=5, num_inference_steps=1)
    assert many.seeds[:2] == few.seeds


def test_generators_draw_the_seeds(pipeline):
    """A generator gives what its integer seed gives and moves on; a list has one for each image."""
    one = generator(7)
    first = pipeline(["a", "b"], generator=one, num_inference_steps=1)
    assert first.seeds == pipeline(["a", "b"], seed=7, num_inference_steps=1).seeds
    assert pipeline(["a", "b"], generator=one, num_inference_steps=1).seeds != first.seeds
    listed = pipeline(["a", "b"], generator=[generator(7), generator(8)], num_inference_steps=1)
    swapped = pipeline(["b", "a"], generator=[generator(8), generator(7)], num_inference_steps=1)
    assert listed.seeds == swapped.seeds[::-1]
    torch.testing.assert_close(listed.tokens, swapped.tokens.flip(0), atol=1e-4, rtol=1e-4)


def test_the_global_generator_is_left_alone(pipeline):
    """Drawing without a seed neither reads nor moves torch's global generator."""
    torch.manual_seed(0)
    state = torch.get_rng_state()
    seeds = pipeline("a", num_inference_steps=1).seeds
    assert torch.equal(torch.get_rng_state(), state)
    assert pipeline("a", num_inference_steps=1).seeds != seeds


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": 1, "generator": torch.Generator()}, "found both"),
        ({"seed": [1, 2]}, r"one seed per image \(1\), found 2"),
        ({"seed": -1}, "from 0 to"),
        ({"seed": 2**63}, "from 0 to"),
        ({"seed": [-1]}, "from 0 to"),
        ({"generator": []}, r"one generator per image \(1\), found 0"),
        ({"num_inference_steps": 2.5}, "num_inference_steps as a whole number of 1 or more, found 2.5"),
        ({"num_head_steps": 2.5}, "num_head_steps as a whole number of 1 or more, found 2.5"),
        ({"num_images_per_prompt": 1.5}, "found 1.5"),
        ({"num_images_per_prompt": 0}, "num_images_per_prompt as a whole number of 1 or more, found 0"),
        ({"num_images_per_prompt": None}, "num_images_per_prompt as a whole number of 1 or more, found None"),
        ({"order": "halton"}, r"an order as an object, such as HaltonOrder\(\), found 'halton'"),
        ({"order": HaltonOrder}, "an order as an object"),
        ({"callback_on_step_end": 5}, "callback_on_step_end as a function, found 5"),
        ({"head_options": {1: 2}}, "1"),
        ({"output_type": "jpeg"}, "found 'jpeg'"),
        ({"num_inference_steps": 0}, "num_inference_steps as a whole number of 1 or more, found 0"),
        ({"num_inference_steps": 10}, "found num_steps=10"),
        ({"num_head_steps": 0}, "0"),
        ({"guidance_scale": float("nan")}, "guidance scale"),
        ({"guidance_schedule": "cubic"}, "'cosine' or 'interval', found 'cubic'"),
        ({"guidance_schedule": "interval"}, "needs an interval of two shares of progress"),
        ({"guidance_schedule": "interval", "guidance_interval": 0.5}, "two shares of progress.*found 0.5"),
        ({"guidance_scale": "3"}, "guidance scale of 0 or more, found '3'"),
        ({"temperature": "1"}, "temperature of 0 or more, found '1'"),
        ({"guidance_interval": (0.2, 0.8)}, "no meaning in the schedule 'constant'"),
        ({"temperature": -1.0}, "temperature"),
    ],
)
def test_requests_without_meaning_are_refused(pipeline, arguments, message):
    """Each with a message that says what was found."""
    unchecked = getattr(FluidPipeline.__call__, "__wrapped__", FluidPipeline.__call__)
    with pytest.raises(InvalidRequestError, match=message):
        unchecked(pipeline, "a", **arguments)


def test_an_empty_negative_prompt_is_none(pipeline):
    """As programs that always give one mean it; among others it is refused, since rows can not differ in that."""
    call = {"seed": 7, "num_inference_steps": 2, "output_type": "pt", "guidance_scale": 2.0}
    expected = pipeline(["a", "b"], **call).images
    for negative in ("", ["", ""], [""]):
        assert torch.equal(pipeline(["a", "b"], negative_prompt=negative, **call).images, expected)
    one, listed = (pipeline(["a", "b"], negative_prompt=negative, **call).images for negative in ("c", ["c"]))
    assert torch.equal(one, listed)
    assert not torch.allclose(one, expected, atol=1e-3)
    with pytest.raises(PromptError, match="all say something, or are all empty, found both"):
        pipeline(["a", "b"], negative_prompt=["", "c"], **call)


def test_bad_prompts_are_refused(pipeline):
    """No prompt, an empty one, an overlong one, and a number of negative prompts that fits nothing."""
    for prompts, message in (
        ([], "at least one prompt"),
        ([""], "empty"),
        (["a", "  "], "empty"),
        (["a" * 500], "500"),
    ):
        with pytest.raises(PromptError, match=message):
            pipeline(prompts)
    with pytest.raises(PromptError, match=r"one per prompt \(2\), found 3"):
        pipeline(["a", "b"], negative_prompt=["x", "y", "z"], guidance_scale=2.0)


def test_a_refused_prompt_is_counted_among_those_given(pipeline):
    """Several images of a prompt make no further prompts: not for the message, nor for the text encoder."""
    with pytest.raises(PromptError, match="prompt 2 of 2"):
        pipeline(["a", "b" * 500], num_images_per_prompt=4)
    with pytest.raises(PromptError, match="the prompt to have at most"):
        pipeline(["a", "b"], negative_prompt="b" * 500, guidance_scale=2.0, num_images_per_prompt=4)
    encoded = []
    encode = pipeline.model.text_encoder.encode
    pipeline.model.text_encoder.encode = lambda prompts: encoded.append(list(prompts)) or encode(prompts)
    call = {"num_images_per_prompt": 3, "num_inference_steps": 1, "guidance_scale": 2.0}
    pipeline(["a", "b"], negative_prompt="c", **call)
    pipeline(["a", "b"], negative_prompt=["c", "d"], **call)
    assert encoded == [["a", "b"], ["c"], ["a", "b"], ["c", "d"]]


def test_negative_prompts_are_one_for_all_or_one_for_each(pipeline):
    """One negative prompt serves all prompts; without guidance none is used."""
    call = {"seed": 3, "num_inference_steps": 2, "output_type": "pt", "num_images_per_prompt": 2}
    one = pipeline(["a", "b"], negative_prompt="ugly", guidance_scale=3.0, **call).images
    each = pipeline(["a", "b"], negative_prompt=["ugly", "ugly"], guidance_scale=3.0, **call).images
    none = pipeline(["a", "b"], guidance_scale=3.0, **call).images
    assert torch.equal(one, each)
    assert not torch.equal(one, none)
    assert torch.equal(pipeline(["a", "b"], negative_prompt="ugly", **call).images, pipeline(["a", "b"], **call).images)


def test_every_setting_reaches_the_picture(pipeline):
    """Each changes what is drawn from the same seed; the steps of the order are those asked for."""
    base = {"seed": 3, "num_inference_steps": 2, "guidance_scale": 3.0, "output_type": "pt"}
    picture = pipeline("a", **base).images
    assert torch.equal(picture, pipeline("a", **base, head_backend="auto", guidance_schedule="constant").images)
    for changed in (
        {"num_inference_steps": 3},
        {"num_head_steps": 3},
        {"head_options": {"num_sampling_steps": 4}},
        {"guidance_scale": 2.0},
        {"guidance_schedule": "cosine"},
        {"guidance_schedule": "interval", "guidance_interval": (0.5, 1.0)},
        {"temperature": 0.5},
        {"negative_prompt": "b"},
        {"negative_prompt_embeds": pipeline.encode_prompts("b")},
        {"order": HaltonOrder()},
        {"seed": 4},
    ):
        assert not torch.equal(pipeline("a", **{**base, **changed}).images, picture), changed
    embeds = pipeline.encode_prompts("a")
    assert torch.equal(pipeline(prompt_embeds=embeds, **base).images, picture)
    reference = pipeline("a", **base, head_backend="reference")
    assert reference.head_backend == "reference"
    torch.testing.assert_close(reference.images, picture, atol=1e-4, rtol=1e-4)


def test_another_order_can_be_asked_for(pipeline, small_model):
    """An order the model was not trained for is refused; the callback is told every step."""
    told = []
    pipeline("a", num_inference_steps=3, callback_on_step_end=told.append)
    assert [progress.step for progress in told] == [1, 2, 3]
    with pytest.raises(IncompatibleComponentsError, match="can not sample with RasterOrder"):
        pipeline("a", order=small_model(order="raster").order)


def test_a_loaded_model_remembers_its_order(small_model, tmp_path):
    """One that was trained over one permutation takes no other, also after it was saved and loaded."""
    FluidPipeline(small_model(order="raster")).save_pretrained(tmp_path / "saved")
    loaded = FluidPipeline.from_pretrained(tmp_path / "saved")
    loaded("a", order=small_model(order="raster").order, num_inference_steps=9)
    with pytest.raises(IncompatibleComponentsError, match="can not sample with RandomOrder"):
        loaded("a", order=small_model(order="random").order)


def test_a_pipeline_puts_its_model_into_evaluation_mode(small_model):
    """Dropout never acts while drawing."""
    model = small_model().train()
    assert not FluidPipeline(model).model.training


def test_moving_keeps_the_pipeline(pipeline):
    """`to` returns the pipeline itself, on the device asked for."""
    assert pipeline.to("cpu") is pipeline
    assert pipeline.device == torch.device("cpu")
