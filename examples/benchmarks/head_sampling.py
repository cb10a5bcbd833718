"""How fast heads draw tokens: every fused sampler beside the plain reference, in one process, in turns.

Command:   python examples/benchmarks/head_sampling.py [--json FILE] [--heads diffusion flow softmax] [--tokens 1 4 16]
Shows:     seconds per call (median), how near it comes to what this machine can do, and the speedup over the reference
Runtime:   ten minutes and more for the paper's diffusion head on two cores; --quick is a fraction of it
Expected:  the fused sampler is two to four times faster at few tokens and a little ahead at 256; all samples agree

A call draws `tokens` tokens with all steps of the head; a row "training loss" is forward and backward through the
head at four timesteps per token, with the condition shared among them or repeated for each. `gflops` and
`gbytes_per_s` count the least work that any implementation needs: every product once, weights that meet a new noisy
token at every step read once per step, and all others once. `share_of_limit` is the time this least work takes at the
machine's own rates (measured first, by large matrix products and large copies) over the time that was needed.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import attrs
import torch
from machine_limits import MachineLimits, measure_limits, seconds_of
from rich.console import Console
from rich.table import Table
from torch import nn

from fluid_core import ContinuousTokens, DiscreteTokens, Grid
from fluid_core.exchange import Guidance, SamplerSettings, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_heads import DiffusionHead, DiffusionOptions, FlowHead, FlowOptions, SoftmaxHead, SoftmaxOptions
from fluid_heads.denoising.network import DenoisingNetwork

GRID = Grid(height=16, width=16)
CHANNELS = 16
BACKENDS = ("reference", "fused")
TIMESTEPS_PER_TOKEN = 4
AGREE_WITHIN = 1e-3
console = Console(width=None if sys.stdout.isatty() else 140)


@attrs.frozen(kw_only=True)
class Work:
    """The least work of one call."""

    flops: float
    num_bytes: float

    def seconds(self, limits: MachineLimits) -> float:
        """The time it takes at the machine's rates, arithmetic and memory at once."""
        return max(self.flops / limits.flops_per_second, self.num_bytes / limits.bytes_per_second)


def main() -> None:
    """Measure and report."""
    arguments = _arguments()
    torch.manual_seed(0)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
    limits = measure_limits()
    console.print(str(limits))
    rows: list[dict[str, Any]] = []
    for name in arguments.heads:
        head = build_head(name, width=arguments.width, depth=arguments.depth)
        for guided in (False, True):
            for num_tokens in arguments.tokens:
                rows += measure(head, name, num_tokens, guided=guided, arguments=arguments, limits=limits)
        if name == "diffusion" and arguments.loss_tokens:
            rows += measure_loss(head, arguments=arguments, limits=limits)
    console.print(_table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if any(row.get("agrees") is False for row in rows):
        sys.exit("Samples of the reference and the fused sampler differ.")


def build_head(name: str, *, width: int, depth: int) -> nn.Module:
    """A head of the paper's shape with random weights: speed does not depend on training."""
    head: nn.Module
    if name == "softmax":
        space = DiscreteTokens(grid=GRID, vocabulary_size=8192)
        head = SoftmaxHead(space, width, SoftmaxOptions(tied_weights=False))
    elif name == "flow":
        tokens = ContinuousTokens(grid=GRID, channels=CHANNELS)
        head = FlowHead(tokens, width, FlowOptions(depth=depth))
    else:
        tokens = ContinuousTokens(grid=GRID, channels=CHANNELS)
        head = DiffusionHead(tokens, width, DiffusionOptions(depth=depth))
    for parameter in head.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
    return head.eval()


def measure(
    head: Any, name: str, num_tokens: int, *, guided: bool, arguments: argparse.Namespace, limits: MachineLimits
) -> list[dict[str, Any]]:
    """One row per backend. They take turns, so that a slow spell of the machine meets all of them."""
    options = {} if name == "softmax" else {"solver": arguments.solver if name == "diffusion" else "euler"}
    steps = None if name == "softmax" else arguments.steps
    samplers, building = {}, {}
    for backend in BACKENDS:
        settings = SamplerSettings(num_steps=steps, backend=backend, options=options)
        started = time.perf_counter()
        samplers[backend] = head.sampler(settings)
        building[backend] = time.perf_counter() - started
    condition = torch.randn(num_tokens, head.condition_width)
    guidance = None
    if guided:
        guidance = Guidance(negative=torch.randn_like(condition), scale=torch.full((num_tokens,), 3.0))

    def draw(backend: str) -> torch.Tensor:
        request = SamplingRequest(random=KeyedRandom(torch.arange(num_tokens)), guidance=guidance)
        tokens: torch.Tensor = samplers[backend](condition, request)
        return tokens

    agrees = _agree(*(draw(backend) for backend in BACKENDS))
    times: dict[str, list[float]] = {backend: [] for backend in BACKENDS}
    while len(times["fused"]) < arguments.repeats:
        for backend in BACKENDS:
            times[backend].append(seconds_of(lambda backend=backend: draw(backend)))  # type: ignore[misc]
    work = _work(head, num_tokens, steps=steps or 1, guided=guided)
    reference = statistics.median(times["reference"])
    rows = []
    for backend in BACKENDS:
        seconds = statistics.median(times[backend])
        rows.append(
            {
                "head": name,
                "backend": backend,
                "solver": options.get("solver", "gumbel-max"),
                "steps": steps or 1,
                "tokens": num_tokens,
                "guidance": guided,
                "seconds": seconds,
                "seconds_fastest": min(times[backend]),
                "seconds_to_build": building[backend],
                "gflops": work.flops / seconds / 1e9,
                "gbytes_per_s": work.num_bytes / seconds / 1e9,
                "share_of_limit": work.seconds(limits) / seconds,
                "speedup": reference / seconds,
                "agrees": agrees,
            }
        )
    console.print(
        f"{name}, {num_tokens} tokens, guidance {'on' if guided else 'off'}: "
        f"{reference:.2f} s against {rows[-1]['seconds']:.2f} s, {rows[-1]['speedup']:.2f} times"
    )
    return rows


def measure_loss(head: Any, *, arguments: argparse.Namespace, limits: MachineLimits) -> list[dict[str, Any]]:
    """The training loss, forward and backward, with several timesteps per token: condition shared, or repeated.

    The repeated form is the same head asked for one timestep of so many copies of each token, as the predecessor does.
    """
    num_tokens, draws = arguments.loss_tokens, TIMESTEPS_PER_TOKEN
    shared = DiffusionHead(
        head.token_space, head.condition_width, attrs.evolve(head.options, timesteps_per_token=draws)
    )
    repeated = DiffusionHead(head.token_space, head.condition_width, attrs.evolve(head.options, timesteps_per_token=1))
    for other in (shared, repeated):
        other.load_state_dict(head.state_dict())
    condition, target = torch.randn(num_tokens, head.condition_width), torch.randn(num_tokens, CHANNELS)

    def train(backend: str) -> None:
        one = shared if backend == "shared" else repeated
        copies = 1 if backend == "shared" else draws
        rows = [each.repeat_interleave(copies, dim=0) for each in (condition, target)]
        loss = one.loss(*rows, random=KeyedRandom(torch.arange(num_tokens * copies)))
        loss.total.mean().backward()  # type: ignore[no-untyped-call]

    backends = ("repeated", "shared")
    times: dict[str, list[float]] = {backend: [] for backend in backends}
    for backend in backends:
        train(backend)
    while len(times["shared"]) < arguments.repeats:
        for backend in backends:
            times[backend].append(seconds_of(lambda backend=backend: train(backend)))  # type: ignore[misc]
    # Backward takes two products for each of the forward pass; a gradient is written for every weight.
    one_way = _work(head, num_tokens, steps=draws, guided=False)
    work = Work(flops=3.0 * one_way.flops, num_bytes=3.0 * 4.0 * sum(p.numel() for p in head.parameters()))
    baseline = statistics.median(times["repeated"])
    rows = []
    for backend in backends:
        seconds = statistics.median(times[backend])
        rows.append(
            {
                "head": "diffusion",
                "backend": backend,
                "solver": "training loss",
                "steps": draws,
                "tokens": num_tokens,
                "guidance": False,
                "seconds": seconds,
                "seconds_fastest": min(times[backend]),
                "seconds_to_build": 0.0,
                "gflops": work.flops / seconds / 1e9,
                "gbytes_per_s": work.num_bytes / seconds / 1e9,
                "share_of_limit": work.seconds(limits) / seconds,
                "speedup": baseline / seconds,
                "agrees": True,
            }
        )
    return rows


def _agree(reference: torch.Tensor, fused: torch.Tensor) -> bool:
    if reference.dtype == torch.int64:
        return bool((reference == fused).float().mean() > 0.99)
    return bool((reference - fused).abs().max() < AGREE_WITHIN * max(1.0, float(reference.abs().max())))


def _work(head: Any, num_tokens: int, *, steps: int, guided: bool) -> Work:
    halves = 2 if guided else 1
    if isinstance(head, SoftmaxHead):
        # Guided logits are the logits of a guided vector: one product serves both.
        size = head.output_weight.numel()
        return Work(flops=2.0 * size * num_tokens, num_bytes=4.0 * size)
    network: DenoisingNetwork = head.network
    modulation = sum(block.modulation.weight.numel() for block in network.blocks)
    modulation += network.output_modulation.weight.numel()
    once = network.condition_projection.weight.numel()
    shared = network.input_projection.weight.numel()
    each = network.output_projection.weight.numel()
    each += sum(layer.weight.numel() for block in network.blocks for layer in block.mlp if isinstance(layer, nn.Linear))
    products = steps * (halves * (modulation + each) + shared) + halves * once
    return Work(flops=2.0 * products * num_tokens, num_bytes=4.0 * (modulation + once + steps * (shared + each)))


def _table(rows: list[dict[str, Any]]) -> Table:
    columns = ("head", "solver", "steps", "tokens", "guidance", "backend", "seconds", "GFLOP/s", "GB/s", "of limit")
    table = Table(*columns, "speedup", "samples agree", title="Drawing tokens")
    for row in rows:
        table.add_row(
            row["head"],
            row["solver"],
            str(row["steps"]),
            str(row["tokens"]),
            "on" if row["guidance"] else "off",
            row["backend"],
            f"{row['seconds']:.3f}",
            f"{row['gflops']:.0f}",
            f"{row['gbytes_per_s']:.1f}",
            f"{row['share_of_limit']:.2f}",
            f"{row['speedup']:.2f}",
            "yes" if row["agrees"] else "NO",
        )
    return table


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", nargs="+", default=["diffusion"], choices=["diffusion", "flow", "softmax"])
    parser.add_argument("--tokens", nargs="+", type=int, default=[1, 4, 16, 64, 256])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--depth", type=int, default=6)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--solver", default="ddpm", help="of the diffusion head")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--loss-tokens", type=int, default=256, help="tokens of the training loss; 0 leaves it out")
    parser.add_argument("--quick", action="store_true", help="few tokens, three repeats")
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.tokens, arguments.repeats, arguments.loss_tokens = [1, 4], 3, 16
    return arguments


if __name__ == "__main__":
    main()
