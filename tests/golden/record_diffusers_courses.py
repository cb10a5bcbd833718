"""Records courses of diffusers' schedulers: `python tests/golden/record_diffusers_courses.py`.

Writes data/diffusers_courses.safetensors, with which `tests/heads/test_diffusion_solvers.py` compares Fluid's
solvers. Needs diffusers (0.42.1 was used), which the tests do not.

In place of a network a formula stands: the exact noise prediction for normal tokens, bent a little so that the course
is no straight line. Its outputs are recorded, so whoever repeats a course needs to know neither formula nor scheduler.
"""

from pathlib import Path

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from safetensors.torch import save_file
from torch import Tensor

FILE = Path(__file__).parent / "data" / "diffusers_courses.safetensors"
NUM_STEPS = (1, 2, 3, 10, 50)
FIRST_TIMESTEP = 980
NUM_TOKENS, CHANNELS = 4, 3
LIMIT = 1.2
SCHEDULE = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}


def evenly_spaced(num_steps: int, first_timestep: int) -> list[int]:
    """Timesteps from the first one down to 0; a single one is the first."""
    return (
        [round(i * first_timestep / max(1, num_steps - 1)) for i in range(num_steps)][::-1]
        if num_steps > 1
        else [first_timestep]
    )


def made_up_output(x: Tensor, timestep: int, levels: Tensor, *, num_steps: int) -> Tensor:
    """Noise and v, side by side, as a network would give them."""
    alpha, sigma = levels[timestep].sqrt(), (1.0 - levels[timestep]).sqrt()
    centre = torch.tensor([-0.8, 0.1, 0.9])
    noise = sigma * (x - alpha * centre) / (0.25 * alpha**2 + sigma**2) + 0.1 * torch.sin(3.0 * x + 0.01 * timestep)
    # The scheduler draws noise in a last step that does not end at timestep 0. With v = -1 it is 1e-10.
    v = torch.full_like(x, -1.0) if num_steps == 1 else torch.sin(2.0 * x + 0.02 * timestep)
    return torch.cat([noise, v], dim=1)


def record(kind: str, num_steps: int, *, limited: bool) -> dict[str, Tensor]:
    """One course: timesteps, where x starts, the outputs, the noise of each step, and x after each step."""
    clipping = {"clip_sample": limited, "clip_sample_range": LIMIT}
    timesteps = evenly_spaced(num_steps, FIRST_TIMESTEP)
    if kind == "ddpm":
        scheduler = DDPMScheduler(**SCHEDULE, **clipping, variance_type="learned_range")
        scheduler.set_timesteps(timesteps=timesteps)
    elif kind == "ddim":
        # This scheduler takes no list of timesteps: they are 0, 1, 2 ... times a stride, plus an offset.
        offset = FIRST_TIMESTEP if num_steps == 1 else 0
        scheduler = DDIMScheduler(**SCHEDULE, **clipping, timestep_spacing="leading", steps_offset=offset)
        scheduler.set_timesteps(num_steps)
        timesteps = scheduler.timesteps.tolist()
    else:
        assert not limited
        scheduler = DPMSolverMultistepScheduler(
            **SCHEDULE, algorithm_type="dpmsolver++", solver_order=2, lower_order_final=True, final_sigmas_type="zero"
        )
        scheduler.set_timesteps(timesteps=timesteps)
    assert scheduler.timesteps.tolist() == timesteps

    start = torch.randn(NUM_TOKENS, CHANNELS, generator=torch.Generator().manual_seed(num_steps))
    noise_seed = 1000 + num_steps
    generator, same = (torch.Generator().manual_seed(noise_seed) for _ in range(2))
    x, outputs, noises, course = start, [], [], []
    for timestep in timesteps:
        output = made_up_output(x, timestep, scheduler.alphas_cumprod, num_steps=num_steps)
        noises.append(torch.randn(NUM_TOKENS, CHANNELS, generator=same))
        if kind == "ddpm":
            x = scheduler.step(output, timestep, x, generator=generator).prev_sample
        elif kind == "ddim":
            x = scheduler.step(output[:, :CHANNELS], timestep, x, use_clipped_model_output=True).prev_sample
        else:
            x = scheduler.step(output[:, :CHANNELS], timestep, x).prev_sample
        outputs.append(output)
        course.append(x)
    return {
        "timesteps": torch.tensor(timesteps),
        "start": start,
        "outputs": torch.stack(outputs),
        "noise": torch.stack(noises),
        "course": torch.stack(course),
    }


def main() -> None:
    """Record every scheduler with every number of steps, those that can limit the clean token with a limit too."""
    tensors = {}
    for kind, limited in (("ddpm", False), ("ddpm", True), ("ddim", False), ("ddim", True), ("dpm++", False)):
        for num_steps in NUM_STEPS:
            name = f"{kind}{'_limited' if limited else ''}_{num_steps}"
            for part, value in record(kind, num_steps, limited=limited).items():
                tensors[f"{name}.{part}"] = value.contiguous()
    save_file(tensors, FILE)


if __name__ == "__main__":
    main()
