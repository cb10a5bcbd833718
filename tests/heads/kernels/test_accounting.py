"""Counting launches and bytes, on programs whose numbers are known."""

import torch

from fluid_core import keyed_random
from fluid_core.exchange import SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_heads.diffusion.noise_schedule import NoiseSchedule, evenly_spaced_timesteps
from fluid_heads.kernels.accounting import count_device_traffic
from fluid_heads.kernels.cuda_denoiser import CudaNetwork
from fluid_heads.kernels.cuda_reverse_loop import CudaReverseLoop
from fluid_heads.kernels.modulated_norm import modulated_norm


def test_operators_are_counted_with_their_bytes():
    """A product and a sum: two launches; looking at a tensor in another way is none."""
    left, right = torch.ones(4, 8), torch.ones(8, 2)
    traffic = count_device_traffic(lambda: (left.view(2, 16).view(4, 8) @ right).t() + 1.0)
    assert dict(traffic.launches) == {"mm": 1, "add": 1}
    assert traffic.bytes_read == 4 * (32 + 16 + 8)
    assert traffic.bytes_written == 4 * (8 + 8)


def test_repeated_values_and_targets_count_once():
    """A bias that is repeated along rows is read once, and the target of a copy or an output is not read."""
    bias, target = torch.ones(8), torch.empty(4, 8)
    traffic = count_device_traffic(lambda: target.copy_(bias.expand(4, 8)))
    assert (traffic.num_launches, traffic.bytes_read, traffic.bytes_written) == (1, 4 * 8, 4 * 32)
    traffic = count_device_traffic(lambda: torch.add(target, 1.0, out=target))
    assert traffic.bytes_written == 4 * 32


def test_a_kernel_is_one_launch(generator):
    """A launch of ours reads one step's modulations of several, whatever the interpreter does underneath."""
    x, modulations = torch.randn(3, 16, generator=generator), torch.zeros(5, 3, 32)
    shift, scale = modulations.split(16, dim=2)
    step = torch.zeros(1, dtype=torch.int32)
    traffic = count_device_traffic(lambda: modulated_norm(x, shift=shift, scale=scale, step=step))
    assert dict(traffic.launches) == {"modulated_norm_kernel": 1}
    assert traffic.bytes_read == 4 * 3 * 48
    assert traffic.bytes_written == 4 * 48


def test_tensors_without_values_are_counted_alike(network, generator, monkeypatch):
    """A run on the meta device launches what a real one does, and moves as much."""
    # On a CPU few random numbers are made without torch.
    monkeypatch.setattr(keyed_random, "_MOST_IN_NUMPY", -1)
    schedule = NoiseSchedule.cosine(evenly_spaced_timesteps(3, first_timestep=980))
    condition = torch.randn(2, 12, generator=generator)

    def run(device):
        loop = CudaReverseLoop(CudaNetwork(network.to(device)), schedule=schedule, condition_width=12)
        request = SamplingRequest(random=KeyedRandom(torch.arange(2, device=device)))
        given = condition.to(device)
        assert loop(given, request).device.type == device
        return count_device_traffic(lambda: loop(given, request))

    real, counted = run("cpu"), run("meta")
    kernels = ("modulated_norm_kernel", "reverse_step_kernel", "addmm", "silu_")
    assert [real.launches[name] for name in kernels] == [counted.launches[name] for name in kernels]
    assert counted.launches["modulated_norm_kernel"] == 3 * 4
    assert counted.launches["reverse_step_kernel"] == 3
    # A CPU alone looks whether the hidden vectors are finite, which moves a few hundred bytes.
    assert 0 <= real.num_bytes - counted.num_bytes <= 1000
