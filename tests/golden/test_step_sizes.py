"""Cosine step sizes against the predecessor's mask schedule (golden/data/mask_schedule.safetensors)."""

import re
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fluid_orders.step_sizes import cosine_step_sizes

_RECORDED = load_file(Path(__file__).parent / "data" / "mask_schedule.safetensors")
_CASES = sorted(
    (int(found[1]), int(found[2]))
    for found in (re.fullmatch(r"seq(\d+)_iter(\d+)\.n_decoded", key) for key in _RECORDED)
    if found
)


def test_all_recorded_cases_are_found():
    """Three lengths, with five or six numbers of steps each, were recorded."""
    assert len(_CASES) == 17
    assert {length for length, _ in _CASES} == {64, 256, 1024}


@pytest.mark.parametrize(("length", "num_steps"), _CASES)
def test_step_sizes_equal_the_predecessors(length: int, num_steps: int):
    """Every step predicts exactly as many tokens as the predecessor's loop decoded."""
    recorded = _RECORDED[f"seq{length}_iter{num_steps}.n_decoded"].tolist()
    assert list(cosine_step_sizes(length, num_steps)) == recorded
