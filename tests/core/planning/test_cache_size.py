"""The size of a cache in a plan is that of the tensors that a cache stores."""

import math

import pytest
import torch

from fluid_core.catalog import installed_components
from fluid_core.data.token_cache.stored_types import cached_tensors, type_of
from fluid_core.planning.cache_size import cache_size
from fluid_core.planning.frozen_parts import text_encoder_outline, tokenizer_outline

CATALOG = installed_components()


@pytest.mark.parametrize("name", CATALOG.names("tokenizer"))
def test_tokens_take_what_is_stored_of_them(name, example_choice, tmp_path):
    """For every installed tokenizer, in float32 and in half of it."""
    component = CATALOG.find("tokenizer", name).component
    options = component.options() if component.example is None else component.example(tmp_path)
    tokenizer = CATALOG.build("tokenizer", name, options)
    images = torch.rand(40, 3, *tokenizer.image_size) * 2 - 1
    if hasattr(tokenizer, "fit"):
        tokenizer.fit(images, seed=0)
    with torch.no_grad():
        precomputed = tokenizer.precompute(images)
    choice = example_choice("tokenizer", name, tmp_path) if component.example else _defaults(name)
    planned = cache_size(tokenizer_outline(choice, CATALOG), None, num_images=7, text_length=9)
    for dtype, found in (("float32", planned.tokens_float32), ("bfloat16", planned.tokens_half)):
        stored = cached_tensors(precomputed, tokenizer.token_space, dtype=dtype)
        assert found == 7 * sum(math.prod(one.shape) * type_of(one.stored_as).itemsize for one in stored)
    assert planned.text_float32 == 0


def _defaults(name):
    from fluid_core.configuration import ComponentChoice

    return ComponentChoice(name=name)


@pytest.mark.parametrize("name", ["t5", "transformers-encoder"])
def test_text_states_take_their_length_times_their_width(name, example_choice, tmp_path):
    """As wide as the encoder says when it is loaded."""
    choice = example_choice("text-encoder", name, tmp_path)
    encoder = CATALOG.build("text-encoder", name, choice.options)
    states = encoder.encode(["a red circle"]).states
    tokenizer = tokenizer_outline(_defaults("pixel-patches"), CATALOG)
    outline, _ = text_encoder_outline(choice, CATALOG)
    assert outline.max_length == encoder.max_length
    assert outline.num_parameters == sum(parameter.numel() for parameter in encoder.parameters())
    planned = cache_size(tokenizer, outline, num_images=5, text_length=states.shape[1])
    assert planned.text_float32 == 5 * states.nbytes == 2 * planned.text_bfloat16
