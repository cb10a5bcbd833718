"""Records courses of diffusers' flow-matching schedulers: `python tests/golden/record_flow_match_schedulers.py`.

Writes data/flow_match_schedulers.safetensors, with which `test_flow_match_schedulers.py` compares Fluid's solvers.
Needs diffusers (0.42.1 was used), which the tests do not.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler
from safetensors.torch import save_file
from torch import Tensor

FILE = Path(__file__).parent / "data" / "flow_match_schedulers.safetensors"
NUM_STEPS = 10
NUM_TOKENS, CHANNELS = 6, 3


def made_up_velocity(x: Tensor, time: Tensor) -> Tensor:
    """A velocity that bends the course in x and time and mixes channels, in place of a network's."""
    return torch.sin(2.0 * x + 3.0 * time) + 0.5 * x * time - torch.roll(x, 1, dims=1).tanh()


def record(solver: str, shift: float) -> dict[str, Tensor]:
    """One course: its times, and x and velocity at every evaluation."""
    if solver == "euler":
        scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / NUM_STEPS, NUM_STEPS))
        times = scheduler.sigmas
    else:
        scheduler = FlowMatchHeunDiscreteScheduler(shift=shift)
        scheduler.set_timesteps(NUM_STEPS)
        # The scheduler lists those between the first and the last twice.
        times = torch.cat([scheduler.sigmas[:1], scheduler.sigmas[1:-1:2], scheduler.sigmas[-1:]])
    initial = x = torch.randn(NUM_TOKENS, CHANNELS, generator=torch.Generator().manual_seed(11))
    visited, velocities = [], []
    for timestep in scheduler.timesteps:
        visited.append(x)
        velocities.append(made_up_velocity(x, timestep / 1000.0))
        x = scheduler.step(velocities[-1], timestep, x).prev_sample
    return {
        "times": times.clone(),
        "timesteps": scheduler.timesteps.clone(),
        "initial": initial.clone(),
        "x": torch.stack(visited),
        "velocity": torch.stack(velocities),
        "result": x,
    }


def main() -> None:
    """Write all courses."""
    courses = {
        f"{solver}_shift{shift}_steps{NUM_STEPS}.{name}": value
        for solver in ("euler", "heun")
        for shift in (1, 3)
        for name, value in record(solver, float(shift)).items()
    }
    save_file(courses, FILE)


if __name__ == "__main__":
    main()
