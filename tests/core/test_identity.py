"""Fingerprints of settings and weights."""

import torch

from fluid_core.identity import RememberedIdentity, identity_of


def _tensors():
    return {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor(3), "flag": torch.tensor(True)}


def test_it_depends_on_every_part_and_on_nothing_else():
    """The order of names does not matter; a value, a shape, a name or a setting does."""
    identity = identity_of({"x": 1, "y": [2]}, _tensors())
    assert identity_of({"y": [2], "x": 1}, dict(reversed(_tensors().items()))) == identity
    others = [
        identity_of({"x": 1, "y": [3]}, _tensors()),
        identity_of({"x": 1, "y": [2]}, {**_tensors(), "a": torch.tensor(4)}),
        identity_of({"x": 1, "y": [2]}, {**_tensors(), "b": torch.arange(6.0)}),
        identity_of({"x": 1, "y": [2]}, {**_tensors(), "c": torch.tensor(3)}),
        identity_of({"x": 1, "y": [2]}, {**_tensors(), "b": _tensors()["b"].double()}),
    ]
    assert len({identity, *others}) == 6
    assert len(identity) == 64
    assert int(identity, 16) > 0


def test_the_layout_in_memory_does_not_matter():
    """A transposed view equals its contiguous copy."""
    tensor = torch.arange(6.0).view(2, 3).T
    assert identity_of({}, {"w": tensor}) == identity_of({}, {"w": tensor.contiguous()})


def test_half_precision_counts_as_the_numbers_it_stands_for():
    """Weights saved in bfloat16 and read as float32 keep their identity; rounding changes it."""
    exact = torch.randn(5, generator=torch.Generator().manual_seed(0))
    rounded = exact.to(torch.bfloat16)
    assert identity_of({}, {"w": rounded}) == identity_of({}, {"w": rounded.float()})
    assert identity_of({}, {"w": rounded}) != identity_of({}, {"w": exact})


def test_a_remembered_identity_notices_changes_in_place():
    """It is what `identity_of` gives, before and after an optimizer's step or a loaded state dict."""
    layer, remembered = torch.nn.Linear(2, 2), RememberedIdentity()
    seen = set()
    for change in (
        lambda: None,
        lambda: torch.optim.SGD(layer.parameters(), lr=1.0).step(),
        lambda: layer.load_state_dict({"weight": torch.ones(2, 2), "bias": torch.zeros(2)}),
        lambda: layer.to(torch.float64),
    ):
        layer(torch.ones(1, 2)).sum().backward() if layer.weight.dtype == torch.float32 else None
        change()
        found = remembered.of({}, layer.state_dict())
        assert found == identity_of({}, layer.state_dict())
        assert remembered.of({}, layer.state_dict()) == found
        seen.add(found)
    assert len(seen) == 4
