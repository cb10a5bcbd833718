"""A module's state as a saved model holds it."""

from safetensors.torch import load, save
from torch import Tensor, nn


def saved_and_read(module: nn.Module) -> dict[str, Tensor]:
    """The state of `module` after a trip through safetensors, the only format that models are saved in.

    Fails for state that is not made of tensors, and for tensors that share memory: each is saved once.
    """
    state = module.state_dict()
    strange = [name for name, value in state.items() if not isinstance(value, Tensor)]
    assert not strange, f"safetensors holds tensors only, but {strange} are of other types"
    return load(save({name: value.contiguous() for name, value in state.items()}))
