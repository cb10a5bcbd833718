"""The solvers of the flow-matching head against recorded courses of diffusers' schedulers (see data/README.md)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fluid_heads.flow.rectified_flow import TIMESTEPS_PER_UNIT, time_grid
from fluid_heads.flow.solvers import integrate, num_evaluations

DATA = Path(__file__).parent / "data"
NUM_STEPS = 10
# The Heun scheduler divides differences of x by times down to 0.001, which amplifies their rounding.
BOUNDS = {"euler": 2e-6, "heun": 2e-5}


def course(name: str) -> dict[str, Tensor]:
    """One recorded course: times, timesteps, and x and velocity at each evaluation."""
    recorded = load_file(DATA / "flow_match_schedulers.safetensors")
    return {key.split(".")[1]: value for key, value in recorded.items() if key.startswith(f"{name}.")}


@pytest.mark.parametrize("shift", [1, 3])
@pytest.mark.parametrize("solver", ["euler", "heun"])
def test_the_same_velocities_lead_the_same_way(solver: str, shift: int) -> None:
    """Given the recorded velocities one by one, x is the recorded one at every evaluation and at the end."""
    recorded = course(f"{solver}_shift{shift}_steps{NUM_STEPS}")
    times = recorded["times"].tolist()
    velocities = iter(zip(recorded["x"], recorded["velocity"], recorded["timesteps"].tolist(), strict=True))

    def velocity(step: int, x: Tensor) -> Tensor:
        expected_x, output, timestep = next(velocities)
        torch.testing.assert_close(x, expected_x, rtol=0.0, atol=BOUNDS[solver])
        assert TIMESTEPS_PER_UNIT * times[step] == pytest.approx(timestep, abs=1e-4)
        return output

    final = integrate(velocity, times, recorded["initial"], solver=solver)
    torch.testing.assert_close(final, recorded["result"], rtol=0.0, atol=BOUNDS[solver])
    assert next(velocities, None) is None, "fewer evaluations than the scheduler's"
    assert len(recorded["x"]) == num_evaluations(NUM_STEPS, solver)


@pytest.mark.parametrize("shift", [1, 3])
def test_the_times_are_those_of_the_euler_scheduler(shift: int) -> None:
    """Evenly spaced down to 1 / steps, shifted, and 0 at the end, as pipelines ask of that scheduler."""
    times = course(f"euler_shift{shift}_steps{NUM_STEPS}")["times"]
    torch.testing.assert_close(torch.tensor(time_grid(NUM_STEPS, shift=float(shift))), times)
