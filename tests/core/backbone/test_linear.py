"""Linear layers of the backbone, packed while pictures are drawn."""

import copy

import pytest
import torch

from fluid_core.backbone.key_value_cache import KeyValueCache
from fluid_core.backbone.linear import Linear, packed_linears
from fluid_core.backbone.sizes import BackboneShape
from fluid_core.backbone.transformer import Transformer

WIDTH = 512


@pytest.fixture(scope="module")
def transformer() -> Transformer:
    """Two blocks wide enough for packing to do something."""
    torch.manual_seed(0)
    return Transformer(BackboneShape(width=WIDTH, depth=2, num_heads=4, aligner_depth=1)).eval()


def drawn(transformer: Transformer) -> list[torch.Tensor]:
    """What both kinds of generation compute, for a few rows."""
    torch.manual_seed(1)
    text = transformer.text(torch.randn(2, 5, WIDTH), torch.ones(2, 5, dtype=torch.bool))
    x, positions = torch.randn(2, 9, WIDTH), torch.tensor([[1, 4, 7, 8], [0, 2, 3, 5]])
    caches: list[KeyValueCache] = transformer.caches(2, 16)
    return [
        transformer(x, text, causal=False),
        transformer.at(x, text, positions),
        transformer.advance(x[:, :5], text, caches, num_questions=4),
        transformer.advance(x[:, 5:7], text, caches, num_questions=2),
    ]


@torch.no_grad()
def test_packed_layers_compute_the_same(transformer: Transformer) -> None:
    """Hidden vectors agree, layers are packed meanwhile, and not afterwards."""
    layers = [module for module in transformer.modules() if isinstance(module, Linear)]
    # Self-attention, cross-attention and MLP; keys and values of the text are computed once and stay plain.
    assert len(layers) == 2 * (2 + 2 + 2)
    plain = drawn(transformer)
    with packed_linears(transformer):
        assert all(layer.is_packed for layer in layers)
        packed = drawn(transformer)
    assert not any(layer.is_packed for layer in layers)
    torch.testing.assert_close(packed, plain, atol=1e-4, rtol=1e-4)
    assert all(torch.equal(a, b) for a, b in zip(drawn(transformer), plain, strict=True))


def test_weights_may_change_between_drawings(transformer: Transformer) -> None:
    """Packed copies are of the weights as they are when the context is entered."""
    changed = copy.deepcopy(transformer)
    with torch.no_grad():
        with packed_linears(changed):
            drawn(changed)
        for parameter in changed.parameters():
            parameter.mul_(1.5)
        plain = drawn(changed)
        with packed_linears(changed):
            torch.testing.assert_close(drawn(changed), plain, atol=1e-3, rtol=1e-3)


def test_an_error_leaves_nothing_packed(transformer: Transformer) -> None:
    """The layers are as before also when drawing fails."""
    with pytest.raises(ValueError, match="stop"), torch.no_grad(), packed_linears(transformer):
        raise ValueError("stop")
    assert not any(module.is_packed for module in transformer.modules() if isinstance(module, Linear))


def test_only_where_it_is_of_use(transformer: Transformer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients, autocast, other types and devices, compiled blocks and large stacks: nothing is packed."""

    def packs(stack: Transformer) -> bool:
        with packed_linears(stack):
            return any(module.is_packed for module in stack.modules() if isinstance(module, Linear))

    assert not packs(transformer)
    with torch.no_grad():
        assert packs(transformer)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not packs(transformer)
        assert not packs(copy.deepcopy(transformer).double())
        assert not packs(copy.deepcopy(transformer).to("meta"))
        compiled = copy.deepcopy(transformer)
        compiled.blocks[0].compile(backend="eager")
        assert not packs(compiled)
        monkeypatch.setattr("fluid_core.backbone.linear.MOST_PACKED_BYTES", 1000)
        assert not packs(transformer)


def test_gradients_pass_while_pictures_are_drawn(transformer: Transformer) -> None:
    """A loss computed in a callback, or in another thread, reaches every weight."""
    learning = copy.deepcopy(transformer)
    with torch.no_grad(), packed_linears(learning):
        drawn(learning)
        with torch.enable_grad():
            sum((hidden**3).sum() for hidden in drawn(learning)[:2]).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in learning.parameters())


def test_copies_are_not_packed(transformer: Transformer) -> None:
    """A model copied while it draws has nothing packed, and computes the same."""
    with torch.no_grad():
        with packed_linears(transformer):
            drawn(transformer)
            copied = copy.deepcopy(transformer)
            assert any(module.is_packed for module in transformer.modules() if isinstance(module, Linear))
        assert not any(module.is_packed for module in copied.modules() if isinstance(module, Linear))
        pairs = zip(drawn(copied), drawn(transformer), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)


def test_an_interrupt_while_packing_leaves_nothing_packed(
    transformer: Transformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers that were packed before it are as before."""
    layers = [module for module in transformer.modules() if isinstance(module, Linear)]

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(layers[2], "pack", interrupted)
    with pytest.raises(KeyboardInterrupt), torch.no_grad(), packed_linears(transformer):
        pass
    assert not any(layer.is_packed for layer in layers)
