"""Where the time of a training step goes, and how much of what the machine can multiply it uses.

Command:   python examples/benchmarks/training_profile.py [--json FILE] [--size tiny] [--batch-size 32] [--steps 20]
Shows:     for the four models of the paper the share of a step's time by kind of work, the FLOPs of the model per
           second, and their share of what large matrix products reach on this machine before and after
Runtime:   two minutes for tiny and for `--size wide --batch-size 16 --steps 2`, on two cores
Expected:  70% of the machine's rate where the width is 768. Seen there: 58% to 78%; at tiny 20% to 35%, where matrix
           products are less than half of the time

FLOPs are those of forward and backward that `fluid_core.training.sight.model_flops` counts. GFLOP/s come from steps
without the profiler, shares from as many with it. Time between operations is what Python and autograd take; with
several threads, what an operation takes is until the last of them is done. Batches are read beforehand. The script
fails if attention is computed by anything but the fused kernels.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from machine_limits import measure_limits
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile
from training_models import MODELS, SIZES, configuration

from fluid_core.data.open_batches import open_batches
from fluid_core.training.sight.progress import TrainingProgress
from fluid_core.training.trainer import Trainer

KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm"),
    "attention": ("flash_attention", "efficient_attention", "scaled_dot_product"),
    "norms": ("layer_norm",),
    "activations": ("gelu", "silu", "sigmoid"),
    "optimizer, average, clipping": ("_fused_adamw_", "lerp", "linalg_vector_norm", "mul_", "Optimizer"),
    "random numbers": ("bitwise", "__and__", "__rshift__", "__lshift__", "__xor__"),
    "copies": ("copy_", "cat", "clone", "stack", "fill_", "zero_", "index", "embedding", "where", "gather"),
    "sums, products of elements": ("add", "mul", "sum", "sub", "div", "pow", "mean", "neg", "exp", "log"),
}
"""Kinds of work, and what the names of their operations contain; the first that fits counts."""

BETWEEN = "between operations"
SLOW_ATTENTION = "aten::_scaled_dot_product_attention_math"
console = Console()


def kind_of(operation: str) -> str:
    """The kind of work that an operation of the profiler is."""
    name = operation.removeprefix("aten::")
    if not operation.startswith("aten::") and not operation.startswith("Optimizer"):
        return BETWEEN
    if name in KINDS["matrix products"]:
        return "matrix products"
    for kind, parts in KINDS.items():
        if kind != "matrix products" and any(part in name for part in parts):
            return kind
    return BETWEEN


def measure(model: str, size: str, folder: Path, *, batch_size: int, num_steps: int) -> dict[str, Any]:
    """Speed and shares of the steps of one model."""
    config = configuration(model, size, batch_size=batch_size)
    trainer = Trainer(config, folder / f"{model}-{size}", progress=TrainingProgress(silent=True))
    assert config.training is not None
    loader = open_batches(trainer.train_data, batch_size=batch_size, seed=0)
    batches = [loader.batch(step) for step in range(num_steps + 3)]
    loader.close()

    def take(steps: range) -> list[float]:
        seconds = []
        for step in steps:
            started = time.perf_counter()
            trainer._steps.take(batches[step], step, share_of_time=0.0)
            trainer.average.update(step)
            seconds.append(time.perf_counter() - started)
        return seconds

    take(range(3))
    seconds = take(range(3, num_steps + 3))
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        take(range(3, num_steps + 3))
    times: Counter[str] = Counter()
    for row in profiled.key_averages():
        if row.key == SLOW_ATTENTION:
            raise SystemExit(f"{model} computes attention without a fused kernel.")
        times[kind_of(row.key)] += row.self_cpu_time_total
    flops = trainer._steps.flops_per_image
    assert flops is not None
    num_weights = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    return {
        "model": model,
        "num_weights": num_weights,
        "gflop": flops * batch_size / 1e9,
        "milliseconds": 1000 * statistics.median(seconds),
        "flops_per_second": flops * batch_size / statistics.median(seconds),
        "shares": {kind: times[kind] / times.total() for kind in (*KINDS, BETWEEN)},
    }


def main() -> None:
    """Measure and print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument(
        "--steps", type=int, help="steps with and as many without the profiler: 20 for tiny, 3 for wide"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="images in a step")
    arguments = parser.parse_args()
    num_steps = arguments.steps or {"tiny": 20, "wide": 3}[arguments.size]
    rows, limits = [], [measure_limits()]
    with tempfile.TemporaryDirectory() as folder:
        for model in arguments.models:
            row = measure(model, arguments.size, Path(folder), batch_size=arguments.batch_size, num_steps=num_steps)
            limits.append(measure_limits())
            rate = statistics.fmean(one.flops_per_second for one in limits[-2:])
            rows.append({**row, "of_machine": row["flops_per_second"] / rate})
    console.print(f"{limits[0]}; after the last: {limits[-1]}")
    speed = Table("model", "weights", "GFLOP a step", "ms", "GFLOP/s", "of the machine's")
    for row in rows:
        speed.add_row(
            row["model"],
            f"{row['num_weights'] / 1e6:.1f}M",
            f"{row['gflop']:.0f}",
            f"{row['milliseconds']:.0f}",
            f"{row['flops_per_second'] / 1e9:.0f}",
            f"{row['of_machine']:.0%}",
        )
    console.print(speed)
    shares = Table("share of a step's time", *(row["model"] for row in rows))
    for kind in (*KINDS, BETWEEN):
        shares.add_row(kind, *(f"{row['shares'][kind]:.0%}" for row in rows))
    console.print(shares)
    if arguments.json:
        figures = {"size": arguments.size, "batch_size": arguments.batch_size, "limits": [str(one) for one in limits]}
        arguments.json.write_text(json.dumps({**figures, "models": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
