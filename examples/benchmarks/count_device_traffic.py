"""Counts what one step of the diffusion head launches on a GPU and how much memory it moves, without having one.

Command:   python examples/benchmarks/count_device_traffic.py [--write-docs] [--json FILE]
Shows:     launches and bytes per step of ancestral sampling, plain and with kernels, against the least possible
Runtime:   half a minute on one core; the reference runs on the CPU, the kernels on tensors without values
Expected:  the reference launches several times as many; few tokens move little beyond the weights that a step needs

A whole run of the reverse process is watched and divided by its steps, so that what happens once is in it. The least
possible reads every weight of the blocks once per step, those of the modulations, of the timesteps and of the condition
once per run, and reads and writes nothing in between but the noisy tokens.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from performance_document import markdown_table, replace_section

from fluid_core import ContinuousTokens, Grid
from fluid_core.exchange import Guidance, SamplerSettings, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_heads import DiffusionHead, DiffusionOptions
from fluid_heads.diffusion.noise_schedule import NoiseSchedule, evenly_spaced_timesteps
from fluid_heads.kernels.accounting import count_device_traffic
from fluid_heads.kernels.cuda_denoiser import CudaNetwork
from fluid_heads.kernels.cuda_reverse_loop import CudaReverseLoop

WIDTH, CHANNELS = 1024, 16


def least_bytes(head: DiffusionHead, *, num_tokens: int, num_steps: int, guided: bool) -> float:
    """Bytes per step that no implementation can do without, in float32."""
    network = head.network
    once_a_run = [network.time_embedding, network.condition_projection, network.output_modulation]
    once_a_run += [block.modulation for block in network.blocks]  # type: ignore[union-attr, misc]
    per_run = sum(one.numel() for module in once_a_run for one in module.parameters())
    per_step = sum(one.numel() for one in network.parameters()) - per_run
    conditions = num_tokens * head.condition_width * (2 if guided else 1)
    return 4.0 * (per_step + 2 * num_tokens * network.channels + (per_run + conditions) / num_steps)


def count(num_tokens: int, num_steps: int, *, guided: bool) -> dict[str, Any]:
    """Launches and bytes per step of both samplers, and the least."""
    options = DiffusionOptions(solver="ddpm", spacing="even", num_sampling_steps=num_steps)
    torch.manual_seed(0)
    head = DiffusionHead(ContinuousTokens(grid=Grid(height=16, width=16), channels=CHANNELS), WIDTH, options)
    head.requires_grad_(False)
    condition = torch.randn(num_tokens, WIDTH)
    guidance = Guidance(negative=torch.randn(num_tokens, WIDTH), scale=torch.ones(num_tokens)) if guided else None
    reference = head.sampler(SamplerSettings(backend="reference"))
    schedule = NoiseSchedule.cosine(evenly_spaced_timesteps(num_steps, first_timestep=options.first_timestep))
    row: dict[str, Any] = {"tokens": num_tokens, "guidance": guided, "steps": num_steps}

    def draw(device: str, sampler: Any) -> None:
        request = SamplingRequest(
            random=KeyedRandom(torch.arange(num_tokens, device=device)),
            guidance=None
            if guidance is None
            else Guidance(negative=guidance.negative.to(device), scale=guidance.scale.to(device)),
        )
        given = condition.to(device)
        traffic = count_device_traffic(lambda: sampler(given, request))
        name = "fused" if device == "meta" else "reference"
        row[f"{name}_launches"] = traffic.num_launches / num_steps
        row[f"{name}_bytes"] = traffic.num_bytes / num_steps

    # The second run is counted: the first prepares what all later ones share.
    for _ in range(2):
        draw("cpu", reference)
    head.to("meta")
    loop = CudaReverseLoop(
        CudaNetwork(head.network), schedule=schedule, condition_width=WIDTH, limit=options.token_limit
    )
    draw("meta", loop)
    row["least_bytes"] = least_bytes(head, num_tokens=num_tokens, num_steps=num_steps, guided=guided)
    return row


def main() -> None:
    """Count all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--json", type=Path, help="file for the rows")
    parser.add_argument("--tokens", type=int, nargs="+", default=[1, 16, 64], help="numbers of tokens")
    parser.add_argument("--steps", type=int, default=100, help="steps of the reverse process")
    arguments = parser.parse_args()
    rows = [count(tokens, arguments.steps, guided=guided) for tokens in arguments.tokens for guided in (False, True)]
    header = (
        *("tokens", "guidance", "launches, reference", "launches, fused"),
        *("MB, reference", "MB, fused", "MB, least", "fused / least"),
    )
    table = markdown_table(
        header,
        [
            (
                str(row["tokens"]),
                "on" if row["guidance"] else "off",
                f"{row['reference_launches']:.0f}",
                f"{row['fused_launches']:.1f}",
                f"{row['reference_bytes'] / 1e6:.1f}",
                f"{row['fused_bytes'] / 1e6:.1f}",
                f"{row['least_bytes'] / 1e6:.1f}",
                f"{row['fused_bytes'] / row['least_bytes']:.2f}",
            )
            for row in rows
        ],
    )
    print(table)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.write_docs:
        replace_section("device traffic", f"Per step, of {arguments.steps} steps, in float32:\n\n{table}")


if __name__ == "__main__":
    main()
