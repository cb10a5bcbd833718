"""AdamW with weight decay only where it belongs."""

import torch
from torch import nn

from fluid_core.configuration import TrainingCourse
from fluid_core.errors import InvalidComponentError
from fluid_core.protocols import ExemptFromWeightDecay
from fluid_core.training.sharding.divided_tensors import without_mixtures

_FUSED_DEVICES = ("cpu", "cuda", "xpu")
"""Types of devices with a kernel that updates all weights at once."""


def build_optimizer(model: nn.Module, config: TrainingCourse) -> torch.optim.AdamW:
    """AdamW over the trainable parameters (paper: betas 0.9 and 0.95, decay 0.02), fused where the device can.

    What decays is `decayed_parameters`. Raises `InvalidComponentError` as that does.
    """
    decays = decayed_parameters(model)
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in trained if name in decays], "weight_decay": config.weight_decay},
        {"params": [p for name, p in trained if name not in decays], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        without_mixtures(groups),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        fused=all(p.device.type in _FUSED_DEVICES for _, p in trained),
    )


def decayed_parameters(model: nn.Module) -> set[str]:
    """Names of the trainable parameters that weight decay pulls towards zero.

    Matrices decay. Vectors (biases, norms, learned tokens), the tables of `nn.Embedding` and what a part exempts
    (`ExemptFromWeightDecay`) do not: pulling them towards zero regularises nothing. Raises `InvalidComponentError` for
    a part that exempts a name it does not have.
    """
    exempt: set[int] = set()
    for place, module in model.named_modules():
        if isinstance(module, nn.Embedding):
            exempt.update(id(p) for p in module.parameters())
        own = dict(module.named_parameters())
        if isinstance(module, ExemptFromWeightDecay):
            unknown = sorted(set(module.no_weight_decay()) - set(own))
            if unknown:
                raise InvalidComponentError(
                    f"{type(module).__name__} ({place or 'the model'}) exempts '{unknown[0]}' from weight decay and "
                    f"has no parameter of that name. It has: {', '.join(own) or 'none'}."
                )
            exempt.update(id(own[name]) for name in module.no_weight_decay())
    return {name for name, p in model.named_parameters() if p.requires_grad and p.ndim >= 2 and id(p) not in exempt}
