"""`FluidPipeline.outpaint` and `.variation`."""

import numpy as np
import pytest
import torch
from PIL import Image

from fluid_core import FluidPipeline, KeyedRandom
from fluid_core.editing.kept_tokens import kept_tokens
from fluid_core.errors import InvalidRequestError


def test_outpaint_draws_around_the_picture(pipeline, noise_of, call):
    """The picture stands in its box to the pixel, resized as PIL does; tokens that touch its outside are drawn."""
    small = noise_of(16, 10, seed=1)
    result = pipeline.outpaint("a", small, (4, 8, 20, 18), **{**call, "output_type": "pil"})
    assert np.array_equal(np.array(result.images[0].crop((4, 8, 20, 18))), np.array(small))
    large = noise_of(48, 30, seed=1)
    result = pipeline.outpaint("a", large, (4, 8, 20, 18), **{**call, "output_type": "pil"})
    expected = np.array(large.resize((16, 10), Image.Resampling.LANCZOS))
    assert np.array_equal(np.array(result.images[0].crop((4, 8, 20, 18))), expected)


def test_outpaint_is_inpaint_of_the_picture_on_a_canvas(pipeline, noise_of, call):
    """With a mask that is white outside of the box."""
    small = noise_of(16, 16, seed=1)
    canvas, mask = Image.new("RGB", (24, 24)), Image.new("1", (24, 24), 1)
    canvas.paste(small, (8, 0))
    mask.paste(0, (8, 0, 24, 16))
    outpainted = pipeline.outpaint("a", small, (8, 0, 24, 16), **call)
    inpainted = pipeline.inpaint("a", canvas, mask, **call)
    torch.testing.assert_close(outpainted.tokens, inpainted.tokens, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(outpainted.images, inpainted.images, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ((0, 0, 25, 16), r"within the 24 x 24 .* found \(0, 0, 25, 16\)"),
        ((-1, 0, 16, 16), "within the 24 x 24"),
        ((16, 0, 16, 16), "left < right"),
        ((0, 0, 16, 12.5), "whole pixels"),
        ((0, 0, 16), "left, top, right, bottom"),
        ((0, 0, 24, 24), "the whole picture, which leaves nothing to draw"),
        ((0, 0, 8, 7), "proportions of 8 x 7 pixels"),
        ((9, 9, 23, 23), "not the whole of any token"),
    ],
)
def test_boxes_that_can_not_be_used_are_refused(pipeline, noise_of, box, message):
    """With what was found."""
    unchecked = getattr(FluidPipeline.outpaint, "__wrapped__", FluidPipeline.outpaint)
    with pytest.raises(InvalidRequestError, match=message):
        unchecked(pipeline, "a", noise_of(24, 24, seed=1), box)


@pytest.mark.parametrize("tokens", ["continuous", "discrete"])
@pytest.mark.parametrize("order", ["random", "causal-random"])
def test_a_variation_keeps_a_share_of_the_tokens(small_model, picture, encoded, call, tokens, order):
    """So many, rounded, which ones by the seed; without a prompt as well; images of one prompt keep others."""
    pipeline = FluidPipeline(small_model(tokens, order))
    (own,) = encoded(pipeline, picture)
    result = pipeline.variation(picture, keep=0.3, **{**call, "num_images_per_prompt": 4})
    same = (result.tokens == own).flatten(2).all(dim=2) if tokens == "continuous" else result.tokens == own
    # An id that is drawn may happen to be the picture's.
    assert all(int(row.sum()) == 3 or (tokens == "discrete" and int(row.sum()) > 3) for row in same)
    if tokens == "continuous":
        assert len({tuple(row.tolist()) for row in same}) > 1
    assert torch.equal(result.images, pipeline.decode(result.tokens))
    again = pipeline.variation(picture, "a", keep=0.3, **{**call, "num_images_per_prompt": 4})
    assert again.seeds == result.seeds
    assert tokens == "discrete" or not torch.equal(again.tokens, result.tokens)


def test_a_share_of_nothing_is_a_call_without_a_picture(pipeline, picture, call):
    """To the bit; a share that would round to all tokens leaves one to draw."""
    assert torch.equal(pipeline.variation(picture, "a", keep=0.0, **call).tokens, pipeline("a", **call).tokens)
    most = []
    pipeline.variation(picture, "a", keep=0.99, callback_on_step_end=most.append, seed=1)
    assert [progress.num_steps for progress in most] == [1]


def test_a_variation_of_named_tokens(pipeline, picture, noise_of, encoded, call):
    """A grid for all pictures, or one for each, of different numbers."""
    corner = np.zeros((3, 3), dtype=bool)
    corner[0, 0] = True
    own = encoded(pipeline, picture)[0]
    for keep in (corner, torch.from_numpy(corner), corner.tolist()):
        result = pipeline.variation(picture, "a", keep=keep, **call)
        same = (result.tokens[0] == own).all(dim=1)
        assert same.nonzero().flatten().tolist() == [0]
    pictures = [picture, noise_of(24, 24, seed=2)]
    owns = torch.cat([encoded(pipeline, one) for one in pictures])
    keep = np.stack([corner, ~corner])
    result = pipeline.variation(pictures, "a", keep=keep, num_images_per_prompt=2, **call)
    same = (result.tokens == owns.repeat_interleave(2, 0)).all(dim=2)
    assert torch.equal(same, torch.from_numpy(keep).flatten(1).repeat_interleave(2, 0))


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (1.0, "from 0 to less than 1, found 1.0"),
        (-0.1, "found -0.1"),
        (float("nan"), "found nan"),
        (True, "found a grid of bool with shape"),
        (np.zeros((2, 3), dtype=bool), r"3 x 3 tokens .* shape \(2, 3\)"),
        (np.zeros((3, 3)), "grid of float64"),
        (np.zeros((2, 3, 3), dtype=bool), r"shape \(2, 3, 3\)"),
        (np.zeros((5, 3, 3), dtype=bool), r"for each of 4\), found a grid of bool with shape \(5, 3, 3\)"),
        (np.ones((3, 3), dtype=bool), "leave out at least one token"),
        ("some", "a share or a grid of True and False, found 'some'"),
    ],
)
def test_what_can_not_be_kept_is_refused(pipeline, keep, message):
    """With what was found."""
    unchecked = getattr(kept_tokens, "__wrapped__", kept_tokens)
    grid = pipeline.model.tokenizer.token_space.grid
    with pytest.raises(InvalidRequestError, match=message):
        unchecked(keep, grid, KeyedRandom(torch.arange(4)), num_pictures=4)


def test_variations_fit_pictures_as_inpainting_does(pipeline, noise_of, call):
    """Other sizes are resized, other proportions refused unless a fit is chosen."""
    assert pipeline.variation(noise_of(48, 48, seed=1), "a", **call).images.shape == (1, 3, 24, 24)
    with pytest.raises(InvalidRequestError, match="found one of 48 x 30"):
        pipeline.variation(noise_of(48, 30, seed=1), "a", **call)
    assert pipeline.variation(noise_of(48, 30, seed=1), "a", fit="crop", **call).images.shape == (1, 3, 24, 24)
