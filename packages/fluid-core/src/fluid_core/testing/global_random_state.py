"""Global random number generators: seeded while a component is built, watched while it works."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import torch

Result = TypeVar("Result")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global CPU generator starts from `seed` inside, and goes on as if nothing had happened after."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def without_global_random_numbers(compute: Callable[[], Result]) -> tuple[Result, Result]:
    """The results of `compute` under two different states of the global generators, for comparison.

    Fails if the call moved the global generator of torch or numpy. Python's own may move, since type checkers draw
    from it, but it is seeded differently as well.
    """
    results = []
    python_before, numpy_before = random.getstate(), np.random.get_state()
    try:
        for seed in (1, 2):
            with seeded(seed):
                random.seed(seed)
                np.random.seed(seed)
                numbers, torch_state = _numpy_state(), torch.get_rng_state()
                results.append(compute())
                moved = [
                    name
                    for name, same in (
                        ("torch", torch.equal(torch_state, torch.get_rng_state())),
                        ("numpy", numbers == _numpy_state()),
                    )
                    if not same
                ]
                assert not moved, f"global random numbers were drawn from: {', '.join(moved)}"
    finally:
        random.setstate(python_before)
        np.random.set_state(numpy_before)
    return results[0], results[1]


def _numpy_state() -> tuple[bytes, int]:
    state = np.random.get_state(legacy=False)["state"]
    return state["key"].tobytes(), int(state["pos"])
