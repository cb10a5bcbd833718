"""What generation computes once, or not at all: counted in rows that pass through the blocks."""

from collections import Counter

import pytest
import torch

from fluid_core import KeyedRandom
from fluid_core.generation import GenerationSettings, generate
from fluid_core.guidance import GuidanceSchedule

LENGTH, STEPS, IMAGES = 9, 4, 2


@pytest.fixture
def rows_of(small_model):
    """A function that generates and returns how many rows entered each part of each block, and calls by part."""

    def count(order, *, scale):
        model = small_model(order=order).eval()
        rows, calls = Counter(), Counter()
        for number, block in enumerate(model.transformer.blocks):
            for name in ("self_attention_norm", "cross_attention_norm", "feed_forward_norm"):

                def add(_module, given, key=(number, name)):
                    rows[key] += given[0].shape[:-1].numel()
                    calls[key] += 1

                getattr(block, name).register_forward_pre_hook(add)

            def add_text(_module, given, key=(number, "text")):
                rows[key] += given[0].shape[0]
                calls[key] += 1

            block.cross_attention.keys_values.register_forward_pre_hook(add_text)
        with torch.no_grad():
            text = model.align_text(["a red circle", "b"])
        num_steps = LENGTH if order == "raster" else STEPS
        settings = GenerationSettings(num_steps=num_steps, guidance=GuidanceSchedule(scale=scale))
        generate(model, text, random=KeyedRandom(torch.arange(IMAGES)), settings=settings)
        return rows, calls, len(model.transformer.blocks)

    return count


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("order", ["random", "causal-random"])
def test_the_text_is_projected_once(rows_of, order, scale):
    """In every block once for all steps, for both halves of guidance together."""
    rows, calls, depth = rows_of(order, scale=scale)
    for block in range(depth):
        assert calls[block, "text"] == 1
        assert rows[block, "text"] == IMAGES * (2 if scale > 1.0 else 1)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_last_block_finishes_predicted_positions_alone(rows_of, scale):
    """Other blocks compute every canvas at every step; before they look at the text, both halves are one."""
    rows, _, depth = rows_of("random", scale=scale)
    halves = 2 if scale > 1.0 else 1
    canvases = STEPS * IMAGES * LENGTH
    assert rows[0, "self_attention_norm"] == canvases
    for block in range(depth - 1):
        assert rows[block, "feed_forward_norm"] == halves * canvases
    assert rows[depth - 1, "cross_attention_norm"] == halves * IMAGES * LENGTH
    assert rows[depth - 1, "feed_forward_norm"] == halves * IMAGES * LENGTH


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_cached_sequence_computes_new_rows_alone(rows_of, scale):
    """A row for every question, and one for every token that another follows in its own step."""
    rows, calls, depth = rows_of("causal-random", scale=scale)
    halves = 2 if scale > 1.0 else 1
    # Of each step the first question stays as the row of the last known token, and the last step's tokens never enter.
    new = rows[0, "self_attention_norm"] // IMAGES
    assert calls[0, "self_attention_norm"] == STEPS
    assert LENGTH < new < 2 * LENGTH - STEPS + 1
    assert rows[0, "feed_forward_norm"] == halves * rows[0, "self_attention_norm"]
    assert rows[depth - 1, "feed_forward_norm"] == halves * IMAGES * LENGTH


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_raster_order_computes_each_row_once(rows_of, scale):
    """One row a token, all of them questions."""
    rows, calls, depth = rows_of("raster", scale=scale)
    assert rows[0, "self_attention_norm"] == IMAGES * LENGTH
    assert rows[depth - 1, "feed_forward_norm"] == (2 if scale > 1.0 else 1) * IMAGES * LENGTH
    assert calls[0, "self_attention_norm"] == LENGTH
