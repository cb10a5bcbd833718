"""Which autoencoder this is: a hash that stays the same when its folder is moved, copied or downloaded again."""

import inspect
from typing import Any

from fluid_core.identity import RememberedIdentity


def autoencoder_identity(autoencoder: Any, remembered: RememberedIdentity) -> str:
    """Hash of class, configuration and weights.

    Arguments that have their default are left out, so that a later diffusers with further arguments agrees.
    """
    cls = type(autoencoder)
    defaults = {name: p.default for name, p in inspect.signature(cls.__init__).parameters.items()}
    config = {
        name: value
        for name, value in autoencoder.config.items()
        if name in defaults and _plain(value) != _plain(defaults[name])
    }
    return remembered.of({"class": cls.__name__, "config": config}, autoencoder.state_dict())


def _plain(value: Any) -> Any:
    """Lists for tuples: a configuration read from JSON has lists."""
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
