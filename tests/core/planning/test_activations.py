"""Activations of a plan are the tensors that a real forward pass saves."""

import attrs
import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from fluid_core.configuration import BackboneConfig
from fluid_core.planning.activations import count_activations
from fluid_core.planning.skeleton import build_skeleton
from fluid_core.training.step.activation_checkpointing import checkpoint_activations, checkpointed_blocks

NUM_IMAGES = 16


def _saved_bytes(model, batch, precision, checkpointed=()):
    """Bytes of all memory that autograd saves, beside the weights, with casts of weights among them.

    What `checkpointed` blocks were called with stays as well, although autograd does not see that it does.
    """
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    found, kept = {}, []

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
            kept.append(tensor)
        return tensor

    def keep_inputs(_, inputs):
        x, text, *_ = inputs
        for tensor in (x, *text):
            pack(tensor)

    hooks = [block.register_forward_pre_hook(keep_inputs) for block in checkpointed]
    with (
        saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"),
    ):
        loss = model(batch)
    for hook in hooks:
        hook.remove()
    assert loss.total.requires_grad
    return sum(found.values())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_activations_are_what_a_real_forward_pass_saves(precision, medium_config, real_batch, tokens_and_order):
    """Within 2%: fused attention keeps a few numbers in other shapes, and indices are saved here and there."""
    config = medium_config(*tokens_and_order)
    model, batch = real_batch(config, NUM_IMAGES)
    share = batch.view.num_predicted / batch.view.order.numel()
    skeleton = attrs.evolve(build_skeleton(config), predicted_share=share)
    planned = count_activations(
        skeleton, num_images=NUM_IMAGES, text_length=skeleton.max_text_length, precision=precision
    )
    assert planned.none + planned.weight_casts == pytest.approx(_saved_bytes(model, batch, precision), rel=0.02)
    assert (planned.weight_casts > 0) == (precision == "bfloat16")


@pytest.mark.parametrize("kind", ["selective", "full"])
def test_checkpointing_keeps_what_the_plan_says(kind, medium_config, real_batch):
    """What stays for the backward pass, and one block that is computed anew: all blocks are equal here."""
    config = medium_config(backbone=BackboneConfig(size="tiny", aligner_depth=0))
    model, batch = real_batch(config, NUM_IMAGES)
    share = batch.view.num_predicted / batch.view.order.numel()
    skeleton = attrs.evolve(build_skeleton(config), predicted_share=share)
    planned = count_activations(
        skeleton, num_images=NUM_IMAGES, text_length=skeleton.max_text_length, precision="float32"
    )
    everything = _saved_bytes(model, batch, "float32")
    blocks = checkpointed_blocks(model, kind)
    checkpoint_activations(model, kind)
    kept = _saved_bytes(model, batch, "float32", blocks)
    num_blocks = len(blocks)
    assert num_blocks == len(model.transformer.blocks) // (1 if kind == "full" else 2)
    assert kept < everything
    assert planned.under(kind) == pytest.approx(kept + (everything - kept) / num_blocks, rel=0.005)


def test_activations_grow_with_the_micro_batch(medium_config):
    """In proportion, as the search for settings that fit takes for granted."""
    skeleton = build_skeleton(medium_config())
    few, many = (
        count_activations(skeleton, num_images=count, text_length=32, precision="bfloat16") for count in (8, 32)
    )
    assert many.none == pytest.approx(4 * few.none, rel=0.01)
    assert many.weight_casts == few.weight_casts
