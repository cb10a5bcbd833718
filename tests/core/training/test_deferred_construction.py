"""Building on the meta device and filling in: the weights of a real construction, a parameter at a time."""

import pytest
import torch
from torch import nn

from fluid_core import assembly
from fluid_core.assembly import build_model
from fluid_core.configuration import ComponentChoice
from fluid_core.exchange import TokenLoss
from fluid_core.training.sharding import building as sharded_building
from fluid_core.training.sharding.building import LaidOutModel
from fluid_core.training.sharding.deferred_construction import DeferredConstruction, loose_meta_tensors, meta_tensors

MODELS = {
    "continuous-random": {},
    "continuous-raster": {},
    "discrete-random": {},
    "discrete-raster": {},
    "continuous-causal-random": {"head": ComponentChoice(name="flow")},
    "continuous-halton": {"head": ComponentChoice(name="gaussian-mixture"), "unconditional": "empty-prompt"},
}


@pytest.mark.parametrize("name", MODELS)
def test_filled_in_weights_are_those_of_a_real_construction(small_config, name):
    """Bit for bit, and the global generator ends in the same place; nothing was real in between."""
    tokens, _, order = name.partition("-")
    config = small_config(tokens, order, **MODELS[name])
    torch.manual_seed(5)
    real = build_model(config)
    after = torch.get_rng_state()
    torch.manual_seed(5)
    laid_out = LaidOutModel(config)
    backbone = [p for n, p in laid_out.model.named_parameters() if not n.startswith(("tokenizer.", "text_encoder."))]
    assert all(parameter.is_meta for parameter in backbone)
    laid_out.remember_shapes()
    laid_out.fill(torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), after)
    expected, found = real.state_dict(), laid_out.model.state_dict()
    assert expected.keys() == found.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)] == []
    assert {n: p.requires_grad for n, p in real.named_parameters()} == {
        n: p.requires_grad for n, p in laid_out.model.named_parameters()
    }


def test_only_one_parameter_is_real_at_a_time():
    """Defaults that are drawn only to be overwritten are dropped, and finished tensors are let go."""
    construction = DeferredConstruction()
    with construction.recording():
        stack = nn.ModuleList(nn.Linear(64, 64) for _ in range(20))
        for layer in stack:
            nn.init.normal_(layer.weight, std=0.1)
            nn.init.zeros_(layer.bias)
    held, most = [], []

    def keep(name, tensor):
        held.append(torch.UntypedStorage.nbytes(tensor.untyped_storage()))
        most.append(name)

    seen = _most_bytes_alive(lambda: construction.replay(meta_tensors(stack), keep))
    assert len(most) == len(set(most)) == 40
    # A weight, a bias, and what a draw needs of its own; not the twenty of each that the model has.
    assert seen < 3 * max(held)


def _most_bytes_alive(action):
    """The most memory that tensors on the CPU take at once while `action` runs, by torch's own account."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        action()
    alive = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            alive += event.nbytes()
            most = max(most, alive)
    return most


def test_views_and_computed_values_are_filled_in():
    """Values computed from other tensors, written through views, and buffers come out as in a real construction."""

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.zeros(6, 4))
            nn.init.kaiming_uniform_(self.table[2:5])
            nn.init.orthogonal_(self.table[:2].detach())
            self.register_buffer("steps", (torch.arange(7) / 7).cumsum(0) ** 2)
            self.scale = nn.Parameter(self.table.detach().abs().mean(dim=1))

    torch.manual_seed(2)
    real = Odd()
    construction = DeferredConstruction()
    with construction.recording():
        deferred = Odd()
    filled = {}
    torch.manual_seed(2)
    construction.replay(meta_tensors(deferred), lambda name, tensor: filled.update({name: tensor.clone()}))
    assert filled.keys() == real.state_dict().keys()
    assert all(torch.equal(filled[name], tensor) for name, tensor in real.state_dict().items())


def test_tensors_that_nobody_could_fill_in_are_found():
    """Attributes on the meta device that are neither parameters nor buffers are named."""
    module = nn.Module()
    module.inner = nn.Linear(2, 2, device="meta")
    assert loose_meta_tensors(module) == []
    module.inner.schedule = {"betas": [torch.zeros(3, device="meta")]}
    assert loose_meta_tensors(module) == ["inner.schedule"]


class PlainHead(nn.Module):
    """A head that knows nothing of the meta device: it keeps a table outside of the registry, and reads its values."""

    def __init__(self, context):
        super().__init__()
        self.token_space = context.token_space
        self.output = nn.Linear(context.width, context.token_space.channels)
        self.levels = torch.arange(5) / 4
        self.reset_parameters()

    def reset_parameters(self):
        """Promises more than it holds: the table is not among what is filled in."""
        nn.init.normal_(self.output.weight, std=0.02)

    def loss(self, condition, target, *, random):
        """Squared error."""
        return TokenLoss(total=(self.output(condition) - target).square().mean(dim=1))

    def sampler(self, settings):
        """Never asked for."""
        raise NotImplementedError


class WithoutReset(PlainHead):
    """One that does not offer `reset_parameters`."""

    reset_parameters = None

    def __init__(self, context):
        nn.Module.__init__(self)
        self.token_space = context.token_space
        self.levels = torch.arange(5) / 4
        self.output = nn.Linear(context.width, context.token_space.channels)


class Rejecting(PlainHead):
    """One whose initialisation looks at what it drew, which torch leaves out on the meta device without a word."""

    def __init__(self, context):
        super().__init__(context)
        self.levels = (0.0, 0.25, 0.5, 0.75, 1.0)

    def reset_parameters(self):
        """Normal, and drawn again where it is too far out."""
        nn.init.trunc_normal_(self.output.weight, std=0.02)


@pytest.mark.parametrize("kind", [PlainHead, WithoutReset, Rejecting])
def test_a_head_that_can_not_be_laid_out_is_built_for_real(small_config, monkeypatch, kind):
    """With the numbers it would have drawn after a real backbone, which gets those it would have drawn before."""
    give_head(monkeypatch, kind)
    torch.manual_seed(1)
    real = build_model(small_config())
    after = torch.get_rng_state()
    torch.manual_seed(1)
    laid_out = LaidOutModel(small_config())
    assert not laid_out.model.head.output.weight.is_meta
    assert [float(level) for level in laid_out.model.head.levels] == [0.0, 0.25, 0.5, 0.75, 1.0]
    laid_out.remember_shapes()
    laid_out.fill(torch.device("cpu"))
    expected, found = real.state_dict(), laid_out.model.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert torch.equal(torch.get_rng_state(), after)


def give_head(monkeypatch, kind):
    """Make every model get a head of `kind`."""
    original = assembly.model_parts

    def parts(config, catalog, **others):
        return {**original(config, catalog, **others), "head": kind}

    monkeypatch.setattr(assembly, "model_parts", parts)
    monkeypatch.setattr(sharded_building, "model_parts", parts)
