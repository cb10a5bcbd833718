"""Pictures of a drawing under way."""

import torch

from fluid_core import FluidPipeline
from fluid_core.editing.token_areas import pixels_of_tokens, tokens_touched
from fluid_core.token_space import Grid


def test_a_preview_is_grey_where_nothing_is_known(pipeline):
    """At every step; where a token is known it shows what the decoder makes of it, and the last is the result."""
    told = []
    result = pipeline(["a", "bb"], seed=1, num_inference_steps=4, output_type="pt", callback_on_step_end=told.append)
    assert len(told) == 4
    for progress in told:
        shown = pipeline.preview(progress)
        areas = shown.view(2, 3, 3, 8, 3, 8).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        final = result.images.view(2, 3, 3, 8, 3, 8).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        assert bool((areas[~progress.known] == 0.5).all())
        assert torch.equal(areas[progress.known], final[progress.known])
    assert torch.equal(pipeline.preview(told[-1]), result.images)


def test_a_preview_of_an_edit_shows_what_is_kept(small_model, picture, mask, call):
    """Ids, too, in a causal order: the kept tokens are there from the first step on."""
    pipeline = FluidPipeline(small_model("discrete", "causal-random"))
    told = []
    pipeline.inpaint("a", picture, mask, callback_on_step_end=told.append, **call)
    shown = pipeline.preview(told[0])
    grey = (shown[0] == 0.5).all(dim=0)
    assert int(grey.sum()) == 64
    assert not bool(grey[16:].any())


def test_tokens_and_pixels_belong_to_each_other():
    """One pixel touches its token; all pixels of a token touch that token alone, on grids that are no square."""
    grid, size = Grid(height=2, width=3), (8, 15)
    for index in range(grid.length):
        token = torch.zeros(1, grid.length, dtype=torch.bool)
        token[0, index] = True
        pixels = pixels_of_tokens(token, grid, size)
        assert int(pixels.sum()) == 20
        assert torch.equal(tokens_touched(pixels, grid), token)
        row, column = divmod(index, 3)
        one = torch.zeros(1, *size, dtype=torch.bool)
        one[0, 4 * row + 3, 5 * column] = True
        assert torch.equal(tokens_touched(one, grid), token)
