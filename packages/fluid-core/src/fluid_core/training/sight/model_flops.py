"""Floating-point operations of a training step, counted once in the model's own forward pass."""

from typing import Any

import torch

from fluid_core.model import FluidModel, TrainingBatch

_BACKWARD = 2
"""Each product of the forward pass is differentiated towards both of its factors."""


def training_flops(model: FluidModel, batch: TrainingBatch) -> float:
    """Matrix FLOPs of forward and backward pass of `batch`, a multiply-add being two.

    What activation checkpointing computes a second time is no work of the model and is not counted; causal attention
    counts as the whole square. Tokenizer and frozen text encoder have done their work by then. One forward pass
    without gradients; no weight changes.
    """
    # Loads Triton where it is installed, which a run need not wait for.
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    def attention_on_cpu(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]

    not_counted_by_torch = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention_on_cpu}
    counter = FlopCounterMode(display=False, custom_mapping=not_counted_by_torch)
    # Compiled blocks hide their operations.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"), counter:
        model(batch)
    return float(counter.get_total_flops() * (1 + _BACKWARD))
