"""The device a run takes."""

import torch

from fluid_core.errors import ConfigurationError


def training_device(name: str, *, setting: str = "training.device") -> torch.device:
    """The device that a setting names; `auto` is a GPU if there is one. `setting` is its name, for messages.

    Raises `ConfigurationError` for one this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigurationError(
            f"{setting} is '{name}', which can not be used here: {reason}. Set it to 'auto' or 'cpu'."
        ) from error
