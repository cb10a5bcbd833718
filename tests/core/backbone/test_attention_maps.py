"""The recomputed attention weights are those that the layers use."""

import pytest
import torch

from fluid_core.backbone.attention_maps import recorded_attention
from fluid_core.errors import InvalidRequestError


@pytest.fixture
def model(small_model):
    """A tiny model in evaluation mode."""
    return small_model().eval()


@pytest.fixture
def inputs(model):
    """Rows of two images and the text for them, of different lengths."""
    rows = torch.randn(2, 9, model.transformer.shape.width, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        aligned = model.align_text(["a red circle", "b"])
        return rows, model.transformer.text(aligned.states, aligned.mask)


@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_weights_times_values_are_what_the_layer_puts_out(model, inputs, causal):
    """For every layer, both attentions: weights @ V through the output projection is the layer's real output."""
    rows, text = inputs
    seen = {}
    for number, block in enumerate(model.transformer.blocks):
        for name in ("self_attention", "cross_attention"):
            attention = getattr(block, name)
            for part in ("qkv", "output") if name == "self_attention" else ("queries", "output"):

                def keep(_module, _inputs, output, key=(number, name, part)):
                    seen[key] = output

                getattr(attention, part).register_forward_hook(keep)
    with recorded_attention(model.transformer) as recorder:
        model.transformer(rows, text, causal=causal)
    maps = recorder.maps(causal=causal)
    for number, block in enumerate(model.transformer.blocks):
        num_heads = block.self_attention.num_heads
        values = seen[number, "self_attention", "qkv"].unflatten(-1, (3, num_heads, -1))[:, :, 2].transpose(1, 2)
        joined = (maps.to_image[number] @ values).transpose(1, 2).flatten(2)
        expected = seen[number, "self_attention", "output"]
        torch.testing.assert_close(block.self_attention.output(joined), expected, atol=1e-5, rtol=1e-5)
        joined = (maps.to_text[number] @ text[number].values).transpose(1, 2).flatten(2)
        expected = seen[number, "cross_attention", "output"]
        torch.testing.assert_close(block.cross_attention.output(joined), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@torch.no_grad()
def test_weights_are_shares_of_what_may_be_seen(model, inputs, causal):
    """They add up to 1; causal rows see no later one, bidirectional ones see all; padding of the text has none."""
    rows, text = inputs
    with recorded_attention(model.transformer) as recorder:
        model.transformer(rows, text, causal=causal)
    maps = recorder.maps(causal=causal)
    assert len(maps.to_image) == len(maps.to_text) == len(model.transformer.blocks)
    later = torch.ones(9, 9, dtype=torch.bool).triu(1)
    for to_image, to_text in zip(maps.to_image, maps.to_text, strict=True):
        assert to_image.shape == (2, model.transformer.shape.num_heads, 9, 9)
        torch.testing.assert_close(to_image.sum(-1), torch.ones(to_image.shape[:-1]))
        torch.testing.assert_close(to_text.sum(-1), torch.ones(to_text.shape[:-1]))
        assert bool((to_image[..., ~later] > 0).all())
        assert bool((to_image[..., later] == 0).all()) == causal
        padding = ~text[0].mask[1, 0, 0]
        assert bool(padding.any())
        assert bool((to_text[1][..., padding] == 0).all())


@torch.no_grad()
def test_recording_changes_nothing_and_ends(model, inputs):
    """The output is the same with and without, and no hook stays behind."""
    rows, text = inputs
    before = model.transformer(rows, text, causal=False)
    with recorded_attention(model.transformer) as recorder:
        assert torch.equal(model.transformer(rows, text, causal=False), before)
    first = recorder.maps(causal=False).to_image[0]
    model.transformer(rows.flip(1), text, causal=False)
    assert torch.equal(recorder.maps(causal=False).to_image[0], first)
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.transformer.modules()]
    assert sum(hooks) == 0


def test_nothing_recorded_is_an_error(model):
    """There is nothing to compute weights from."""
    with recorded_attention(model.transformer) as recorder, pytest.raises(InvalidRequestError, match="found none"):
        recorder.maps(causal=False)


@torch.no_grad()
def test_a_pass_of_chosen_rows_is_an_error(model, inputs):
    """Its last block has no weights for the other rows."""
    rows, text = inputs
    with recorded_attention(model.transformer) as recorder:
        model.transformer(rows, text, causal=False, numbers=torch.tensor([0, 4, 13]))
    with pytest.raises(InvalidRequestError, match="chosen by their"):
        recorder.maps(causal=False)
