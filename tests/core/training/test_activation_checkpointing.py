"""Blocks that are computed twice: the same numbers, less memory. And blocks that are compiled."""

import copy
import json
import os
import subprocess

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from fluid_core.configuration import BackboneConfig, config_to_json
from fluid_core.training.step.activation_checkpointing import checkpoint_activations, checkpointed_blocks
from fluid_core.training.step.precision import computing_in

PAPER_MODELS = [(tokens, order) for tokens in ("continuous", "discrete") for order in ("random", "raster")]
FOUR_BLOCKS = BackboneConfig(width=32, depth=4, num_heads=2, aligner_depth=2)


def loss_and_gradients(model, images, captions, dtype=torch.float32):
    """The loss of a batch, every gradient, and bytes that the forward pass kept besides weights."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    torch.manual_seed(5)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        with computing_in(dtype, torch.device("cpu")):
            loss = model.loss(images, captions, generator=torch.Generator().manual_seed(0))
        num_bytes = sum(size for storage, size in kept.items() if storage not in weights)
    model.zero_grad()
    loss.total.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return loss.total.detach(), gradients, num_bytes


@pytest.mark.parametrize(("tokens", "order"), PAPER_MODELS)
def test_losses_and_gradients_are_equal_bit_for_bit(tokens, order, small_model, images, captions):
    """Whichever blocks forget, nothing changes but memory: less with every second block, least with all."""
    found = {}
    for kind in ("none", "selective", "full"):
        model = small_model(tokens, order, backbone=FOUR_BLOCKS)
        checkpoint_activations(model, kind)
        found[kind] = loss_and_gradients(model, images, captions)
    loss, gradients, num_bytes = found["none"]
    assert len(gradients) > 40
    for kind in ("selective", "full"):
        assert torch.equal(found[kind][0], loss)
        assert found[kind][1].keys() == gradients.keys()
        assert all(torch.equal(found[kind][1][name], gradient) for name, gradient in gradients.items())
    assert found["full"][2] < 0.8 * found["selective"][2]
    assert found["selective"][2] < 0.8 * num_bytes


def test_dropout_drops_the_same_again(small_model, images, captions):
    """The second computation of a block draws what the first drew."""
    backbone = BackboneConfig(width=32, depth=2, num_heads=2, aligner_depth=1, dropout=0.3)
    found = []
    for kind in ("none", "full"):
        model = small_model("continuous", "random", backbone=backbone)
        checkpoint_activations(model, kind)
        found.append(loss_and_gradients(model, images, captions)[:2])
    (loss, gradients), (other_loss, other_gradients) = found
    assert torch.equal(loss, other_loss)
    assert all(torch.equal(other_gradients[name], gradient) for name, gradient in gradients.items())


def test_autocast_holds_in_the_second_computation(small_model, images, captions):
    """In bfloat16 too, gradients are those without checkpointing."""
    found = []
    for kind in ("none", "full"):
        model = small_model("continuous", "random")
        checkpoint_activations(model, kind)
        found.append(loss_and_gradients(model, images, captions, torch.bfloat16)[1])
    assert all(torch.equal(found[1][name], gradient) for name, gradient in found[0].items())


def test_which_blocks_forget(small_model):
    """None, the first of every pair, or all of backbone and aligner; names of weights stay, and copies are whole."""
    model = small_model("continuous", "random", backbone=FOUR_BLOCKS)
    blocks, aligner = list(model.transformer.blocks), list(model.aligner.blocks)
    assert checkpointed_blocks(model, "none") == []
    assert checkpointed_blocks(model, "selective") == [aligner[0], blocks[0], blocks[2]]
    assert checkpointed_blocks(model, "full") == [*aligner, *blocks]
    names = list(model.state_dict())
    checkpoint_activations(model, "full")
    assert list(model.state_dict()) == names
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert copied.transformer.blocks[0].forward.args[0].__self__ is copied.transformer.blocks[0]


def test_a_checkpointed_run_is_the_run(run_config, make_trainer, tmp_path):
    """Through the trainer: the model at the end is the same file."""
    files = []
    for kind in ("none", "full"):
        trainer = make_trainer(run_config(activation_checkpointing=kind, num_steps=3), tmp_path / kind)
        trainer.train()
        files.append((trainer.folder / "model" / "model.safetensors").read_bytes())
    assert files[0] == files[1]


COMPILED = """
import json, sys
import torch
from fluid_core import FluidModel
from fluid_core.configuration import config_from_json
from fluid_core.training.step.activation_checkpointing import checkpoint_activations
from fluid_core.training.step.block_compilation import compile_blocks

config, kind = config_from_json(sys.argv[1]), sys.argv[2]


def built():
    torch.manual_seed(0)
    model = FluidModel.from_config(config)
    model.tokenizer.fit(torch.rand(8, 3, 24, 24) * 2 - 1, seed=0)
    return model


def gradients(model, captions):
    model.zero_grad()
    images = torch.rand(len(captions), 3, 24, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1
    model.loss(images, captions, generator=torch.Generator().manual_seed(0)).total.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


graphs = []


def backend(graph, inputs):
    graphs.append(graph)
    return graph.forward


plain, compiled = built(), built()
checkpoint_activations(compiled, kind)
compile_blocks(compiled, backend=backend)
assert list(plain.state_dict()) == list(compiled.state_dict())
counts = []
lengths = (["a"], ["a much longer caption than before", "b"], ["of yet another length"], ["ab"])
for captions in (some * (4 // len(some)) for some in lengths):
    expected, found = gradients(plain, captions), gradients(compiled, captions)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)
    counts.append(len(graphs))
print(json.dumps(counts))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "order", "graphs"),
    [("none", "raster", [1, 2, 2, 2]), ("full", "raster", [1, 2, 2, 2]), ("full", "random", [2, 4, 4, 4])],
)
def test_compiled_blocks_compute_the_same(kind, order, graphs, small_config, warm_start):
    """Gradients agree, with blocks that forget too. Twelve blocks are one graph; another length adds one, once.

    In random order the last block is another graph, and other numbers of tokens to predict are as another length.

    In a process of its own, since the type checks of these tests are nothing that the compiler sees through.
    """
    backbone = BackboneConfig(width=32, depth=12, num_heads=2, aligner_depth=1)
    config = config_to_json(small_config("continuous", order, backbone=backbone))
    finished = subprocess.run(
        [warm_start.python, "-c", COMPILED, config, kind],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert json.loads(finished.stdout) == graphs
