"""Memory for time: blocks that forget what they computed, and compute it again when gradients are taken.

`full` does so in every block of backbone and text aligner: each then keeps its input alone. `selective` does so in
every second block, the first of each pair: about half of the memory for about half of the extra time. The head is left
alone.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from fluid_core.model import FluidModel

ActivationCheckpointing = Literal["none", "selective", "full"]


def checkpointed_blocks(model: FluidModel, kind: ActivationCheckpointing) -> list[nn.Module]:
    """The blocks that are computed twice."""
    every = {"none": 0, "selective": 2, "full": 1}[kind]
    stacks = (model.aligner.blocks, model.transformer.blocks)
    return [block for stack in stacks for block in list(stack)[::every]] if every else []


def checkpoint_activations(model: FluidModel, kind: ActivationCheckpointing) -> None:
    """Make those blocks of `model` compute twice in training; without gradients nothing changes.

    Losses and gradients stay what they were, also with dropout. Inside `forward`, so that what wraps a whole block,
    such as sharding, happens once.
    """
    draws = any(isinstance(module, nn.Dropout) and module.p > 0.0 for module in model.transformer.modules())
    for block in checkpointed_blocks(model, kind):
        block.forward = partial(_checkpointed, block.forward, draws)


def _checkpointed(forward: Callable[..., Any], draws: bool, *arguments: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*arguments)
    return checkpoint(forward, *arguments, use_reentrant=False, preserve_rng_state=draws)
