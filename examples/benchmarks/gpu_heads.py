"""Times the fused samplers of the heads on a CUDA device, beside the plain references.

Command:   python examples/benchmarks/gpu_heads.py [--json FILE] [--precision bfloat16] [--quick]
Shows:     milliseconds per call (median), reference and fused, the fused one also replayed as a CUDA graph; for the
           diffusion head 100 steps of ancestral sampling, for the softmax head one draw from the vocabulary
Runtime:   one to three minutes on an H100
Expected:  the fused samplers are faster everywhere and most so for few tokens; the ids and tokens agree

Prints the name of the device. Leaves with a message where there is no CUDA device or no triton.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fluid_core import ContinuousTokens, DiscreteTokens, Grid
from fluid_core.exchange import Guidance, SamplerSettings, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_heads import DiffusionHead, DiffusionOptions, SoftmaxHead, SoftmaxOptions
from fluid_heads.diffusion.noise_schedule import NoiseSchedule, evenly_spaced_timesteps
from fluid_heads.kernels import kernels_run_on

GRID = Grid(height=16, width=16)
WIDTH, CHANNELS, NUM_STEPS = 1024, 16, 100
DEVICE = "cuda"


def median_milliseconds(call: Callable[[], object], repeats: int) -> float:
    """Time on the device between a call's first and last launch; two calls before, which compile and capture."""
    times = []
    for number in range(repeats + 2):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        if number >= 2:
            times.append(begin.elapsed_time(end))
    return statistics.median(times)


def request(num_tokens: int, *, guided: bool) -> SamplingRequest:
    """A request with the same random numbers every time."""
    negative = torch.randn(num_tokens, WIDTH, device=DEVICE, generator=torch.Generator(DEVICE).manual_seed(2))
    scale = torch.full((num_tokens,), 3.0, device=DEVICE)
    keys = torch.arange(1, num_tokens + 1, device=DEVICE)
    return SamplingRequest(
        random=KeyedRandom(keys), guidance=Guidance(negative=negative, scale=scale) if guided else None
    )


def with_values(head: Any) -> Any:
    """The head on the device, its zero-initialised layers filled too."""
    torch.manual_seed(0)
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.02)
    return head.to(DEVICE).requires_grad_(False)


def diffusion_samplers(precision: torch.dtype) -> dict[str, Callable[..., torch.Tensor]]:
    """The reference, and the loop of kernels launched by the host or replayed as a graph."""
    from fluid_heads.kernels.cuda_denoiser import CudaNetwork
    from fluid_heads.kernels.cuda_reverse_loop import CudaReverseLoop

    options = DiffusionOptions(solver="ddpm", spacing="even", num_sampling_steps=NUM_STEPS)
    head = with_values(DiffusionHead(ContinuousTokens(grid=GRID, channels=CHANNELS), WIDTH, options)).to(precision)
    network = CudaNetwork(head.network)
    timesteps = evenly_spaced_timesteps(NUM_STEPS, first_timestep=options.first_timestep)

    def loop(*, capture: bool) -> CudaReverseLoop:
        return CudaReverseLoop(
            network,
            schedule=NoiseSchedule.cosine(timesteps),
            condition_width=WIDTH,
            limit=options.token_limit,
            capture=capture,
        )

    return {
        "reference": head.sampler(SamplerSettings(backend="reference")),
        "fused": loop(capture=False),
        "fused, graph": loop(capture=True),
    }


def softmax_samplers(precision: torch.dtype, vocabulary: int) -> dict[str, Callable[..., torch.Tensor]]:
    """The reference, and the kernel that never writes logits."""
    from fluid_heads.kernels.vocabulary_sampling import draw_from_vocabulary

    space = DiscreteTokens(grid=GRID, vocabulary_size=vocabulary)
    head = with_values(SoftmaxHead(space, WIDTH, SoftmaxOptions(tied_weights=False))).to(precision)

    def fused(condition: torch.Tensor, request: SamplingRequest) -> torch.Tensor:
        return draw_from_vocabulary(
            condition,
            head.output_weight,
            head.bias,
            random=request.random,
            temperature=request.temperature,
            guidance=request.guidance,
        )

    return {"reference": head.sampler(SamplerSettings(backend="reference")), "fused": fused}


def main() -> None:
    """Time all cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"), help="type of the weights")
    parser.add_argument("--quick", action="store_true", help="fewer sizes and repeats")
    arguments = parser.parse_args()
    if not torch.cuda.is_available() or not kernels_run_on(DEVICE):
        raise SystemExit("This benchmark needs a CUDA device, triton, and TRITON_INTERPRET unset.")
    device_name = torch.cuda.get_device_name()
    print(f"{device_name}, weights in {arguments.precision}")

    precision = getattr(torch, arguments.precision)
    cases = {
        "diffusion": diffusion_samplers(precision),
        "softmax 8192": softmax_samplers(precision, 8192),
        "softmax 16384": softmax_samplers(precision, 16384),
    }
    rows: list[dict[str, Any]] = []
    print(f"{'head':<15}{'tokens':>8}{'guided':>8}  {'backend':<14}{'ms':>10}{'speedup':>9}{'agree':>8}")
    for head, samplers in cases.items():
        for num_tokens in (1, 64) if arguments.quick else (1, 4, 16, 64, 256):
            generator = torch.Generator(DEVICE).manual_seed(1)
            condition = torch.randn(num_tokens, WIDTH, device=DEVICE, generator=generator)
            for guided in (False, True):
                expected, reference_time = None, 0.0
                for backend, sampler in samplers.items():
                    drawn = sampler(condition, request(num_tokens, guided=guided))
                    expected = drawn if expected is None else expected
                    # Tokens to within the rounding of the type; ids may differ where two of them are nearly tied.
                    tolerance = 1e-3 if precision == torch.float32 else 0.2
                    agree = float(((drawn - expected).abs() <= tolerance).float().mean())
                    asked = request(num_tokens, guided=guided)
                    milliseconds = median_milliseconds(
                        lambda run=sampler, given=condition, asked=asked: run(given, asked),
                        3 if arguments.quick else 10,
                    )
                    reference_time = reference_time or milliseconds
                    rows.append(
                        {
                            "device": device_name,
                            "precision": arguments.precision,
                            "head": head,
                            "tokens": num_tokens,
                            "guidance": guided,
                            "backend": backend,
                            "milliseconds": milliseconds,
                            "speedup": reference_time / milliseconds,
                            "agree": agree,
                        }
                    )
                    print(
                        f"{head:<15}{num_tokens:>8}{'yes' if guided else 'no':>8}  {backend:<14}{milliseconds:>10.3f}"
                        f"{reference_time / milliseconds:>8.2f}x{agree:>8.1%}"
                    )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
