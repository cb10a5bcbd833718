"""Whether the kernels can be used here. Loads neither torch nor triton."""

import importlib.util
import os


def triton_available() -> bool:
    """Whether triton is installed. It exists for Linux only."""
    return importlib.util.find_spec("triton") is not None


def uses_kernels(device_type: str) -> bool:
    """Whether heads on this type of device sample with the kernels: on `cuda`, if triton is installed."""
    return device_type == "cuda" and kernels_run_on(device_type)


def kernels_run_on(device_type: str) -> bool:
    """Whether the kernels run on tensors of this type of device, `cuda` or `cpu`.

    On a CPU they run in Triton's interpreter, which is slow and meant for tests: the variable TRITON_INTERPRET must
    have been 1 before triton was first imported.
    """
    if not triton_available():
        return False
    interpreted = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")
    return device_type == ("cpu" if interpreted else "cuda")
