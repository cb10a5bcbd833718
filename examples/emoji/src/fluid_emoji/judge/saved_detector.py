"""The detector as it lies on disk: half-precision weights in safetensors, and in JSON what they were trained on."""

import functools
from importlib import resources
from pathlib import Path

import attrs
import torch

from fluid_core.atomic_files import load_state, read_json, read_safetensors, write_json, write_safetensors
from fluid_core.errors import CheckpointError
from fluid_emoji.judge.network import DetectorNetwork

WEIGHTS_FILE = "detector.safetensors"
DESCRIPTION_FILE = "detector.json"


@attrs.frozen(kw_only=True)
class DetectorDescription:
    """What a detector knows and how it was trained."""

    kinds: tuple[str, ...]
    """Names of the objects, in the order of its logits."""

    colors: tuple[str, ...]
    styles: tuple[str, ...]
    """Drawing styles it has seen."""

    num_steps: int
    batch_size: int
    learning_rate: float
    seed: int


def save_detector(network: DetectorNetwork, description: DetectorDescription, folder: Path) -> None:
    """Write weights and description into `folder`. Raises `OutputError` if that is impossible."""
    state = {
        name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in network.state_dict().items()
    }
    write_safetensors(folder / WEIGHTS_FILE, state)
    write_json(folder / DESCRIPTION_FILE, {"format_version": 1} | attrs.asdict(description))


def load_detector(folder: Path) -> tuple[DetectorNetwork, DetectorDescription]:
    """The detector in `folder`, ready for use. Raises `CheckpointError` if it is missing or damaged."""
    written = read_json(folder / DESCRIPTION_FILE)
    try:
        if written.pop("format_version") != 1:
            raise ValueError("another format_version than 1")
        fields = {name: tuple(value) if isinstance(value, list) else value for name, value in written.items()}
        description = DetectorDescription(**fields)  # type: ignore[arg-type]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / DESCRIPTION_FILE} does not describe a detector: {error!r}.") from error
    network = DetectorNetwork(len(description.kinds), len(description.colors))
    path = folder / WEIGHTS_FILE
    state = {
        name: tensor.float() if tensor.dtype == torch.float16 else tensor
        for name, tensor in read_safetensors(path).items()
    }
    load_state(network, state, source=str(path), expected=network.state_dict())
    return network.eval(), description


@functools.cache
def shipped_detector() -> tuple[DetectorNetwork, DetectorDescription]:
    """The detector that comes with this package. Raises `CheckpointError` if its files were left out."""
    with resources.as_file(resources.files("fluid_emoji.judge")) as folder:
        return load_detector(folder)
