"""AdamW with weight decay only where it belongs."""

import torch
from torch import nn

from fluid_core.configuration import TrainingCourse


def build_optimizer(model: nn.Module, config: TrainingCourse) -> torch.optim.AdamW:
    """AdamW over the trainable parameters (paper: betas 0.9 and 0.95, decay 0.02).

    Matrices of linear layers decay. Vectors (biases, norms, learned tokens) and tables (positions, ids) do not: pulling
    them towards zero regularises nothing.
    """
    tables = {id(p) for m in model.modules() if isinstance(m, nn.Embedding) for p in m.parameters()}
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_table = id(parameter) in tables or name.endswith(".table")
        (free if parameter.ndim < 2 or is_table else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        groups,
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=True,
    )
