"""How few steps a diffusion head needs: samples of every solver against 1000-step ancestral sampling.

Command:   python examples/benchmarks/sampling_steps.py [--json FILE] [--plot docs/images/sampling-steps.png]
Shows:     the distance between two sets of samples of the same trained heads, by solver and number of steps, beside
           what two sets drawn alike show by chance
Runtime:   ten minutes and more on two cores
Expected:  the distance falls to the level of chance long before 1000 steps

Two heads are trained here on made-up tokens of 16 channels, one on clusters, one on a curved sheet, each different for
each of eight conditions. The distance is the energy distance (Szekely and Rizzo, 2013), which is zero only for equal
distributions; its p-value comes from a permutation test. The resolution of the test is measured too: the smallest
stretch of the samples by a factor that it finds.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import matplotlib
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from fluid_core import ContinuousTokens, Grid
from fluid_core.exchange import SamplerSettings, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_heads import DiffusionHead, DiffusionOptions

matplotlib.use("agg")
import matplotlib.pyplot as plt

CHANNELS, CONDITION_WIDTH, NUM_CONDITIONS = 16, 32, 8
SOLVERS = {"ddpm": (10, 25, 50, 100, 200), "ddim": (5, 10, 25, 50, 100), "dpm++": (5, 10, 15, 25, 50)}
STRETCHES = (1.01, 1.02, 1.03, 1.05, 1.08, 1.12, 1.2)
NUM_PERMUTATIONS = 400
SIGNIFICANT = 0.01
console = Console()


def main() -> None:
    """Train, draw, compare and report."""
    arguments = _arguments()
    rows: list[dict[str, Any]] = []
    for name in ("clusters", "sheet"):
        head, loss = train_head(name, num_steps=arguments.training_steps)
        console.print(f"{name}: trained to a squared error of {loss:.3f}")
        rows += compare(head, name, num_samples=arguments.samples)
    console.print(_table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.plot:
        _plot(rows, arguments.plot)


def made_up_tokens(name: str, condition: Tensor, generator: torch.Generator) -> Tensor:
    """Tokens of unit variance for conditions numbered 0 to 7: three clusters, or a rolled sheet, in 16 channels."""
    fixed = torch.Generator().manual_seed(7)
    count = condition.shape[0]
    if name == "clusters":
        centers = torch.randn(NUM_CONDITIONS, 3, CHANNELS, generator=fixed)
        which = torch.multinomial(torch.tensor([0.6, 0.3, 0.1]), count, replacement=True, generator=generator)
        tokens = centers[condition, which] + 0.15 * torch.randn(count, CHANNELS, generator=generator)
    else:
        basis = torch.linalg.qr(torch.randn(NUM_CONDITIONS, CHANNELS, 3, generator=fixed)).Q
        angle = 1.5 + 4.5 * torch.rand(count, generator=generator)
        height = 2.0 * torch.rand(count, generator=generator) - 1.0
        sheet = torch.stack([angle * angle.cos(), angle * angle.sin(), 3.0 * height], dim=-1)
        tokens = torch.einsum("ncd,nd->nc", basis[condition], sheet)
        tokens = 1.5 * tokens + 0.1 * torch.randn(count, CHANNELS, generator=generator)
        tokens = tokens / 1.5
    return tokens


def train_head(name: str, *, num_steps: int) -> tuple[DiffusionHead, float]:
    """A head that has learned the made-up tokens, and the squared error of its last steps."""
    torch.manual_seed(0)
    space = ContinuousTokens(grid=Grid(height=1, width=1), channels=CHANNELS)
    head = DiffusionHead(space, CONDITION_WIDTH, DiffusionOptions(width=128, depth=3))
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=num_steps, pct_start=0.05)
    errors = []
    for _ in range(num_steps):
        condition = torch.randint(NUM_CONDITIONS, (256,), generator=generator)
        target = made_up_tokens(name, condition, generator)
        loss = head.loss(vectors(condition), target, random=KeyedRandom.from_generator(generator, 256))
        optimizer.zero_grad()
        loss.total.mean().backward()
        optimizer.step()
        schedule.step()
        errors.append(float(loss.parts["mse"].mean()))
    last = errors[-200:]
    return head.eval(), sum(last) / len(last)


def vectors(condition: Tensor) -> Tensor:
    """A fixed hidden vector for each condition."""
    table = torch.randn(NUM_CONDITIONS, CONDITION_WIDTH, generator=torch.Generator().manual_seed(11))
    return table[condition]


def draw(head: DiffusionHead, *, solver: str, num_steps: int, num_samples: int, seed: int) -> Tensor:
    """As many tokens for each condition, in the same order for every call."""
    condition = torch.arange(num_samples) % NUM_CONDITIONS
    # The whole process, from the last timestep, is what fewer steps are compared with.
    whole = {"first_timestep": 999} if num_steps == 1000 else {}
    sampler = head.sampler(SamplerSettings(num_steps=num_steps, options={"solver": solver, **whole}))
    random = KeyedRandom.from_generator(torch.Generator().manual_seed(seed), num_samples)
    tokens: Tensor = sampler(vectors(condition), SamplingRequest(random=random))
    return tokens


def compare(head: DiffusionHead, name: str, *, num_samples: int) -> list[dict[str, Any]]:
    """Every solver and number of steps against 1000 ancestral steps, and how small a difference would be found."""
    condition = torch.arange(num_samples) % NUM_CONDITIONS
    reference = draw(head, solver="ddpm", num_steps=1000, num_samples=num_samples, seed=0)
    again = draw(head, solver="ddpm", num_steps=1000, num_samples=num_samples, seed=1)
    chance, p_value, level = energy_test(reference, again, condition)
    found = [s for s in STRETCHES if energy_test(reference, s * again, condition)[1] < SIGNIFICANT]
    shared = {"data": name, "level_of_chance": level, "resolution": min(found) if found else None}
    rows = [{**shared, "solver": "ddpm", "steps": 1000, "distance": chance, "p_value": p_value, "seconds": None}]
    for solver, counts in SOLVERS.items():
        for num_steps in counts:
            started = time.perf_counter()
            tokens = draw(head, solver=solver, num_steps=num_steps, num_samples=num_samples, seed=2)
            seconds = time.perf_counter() - started
            distance, p_value, _ = energy_test(reference, tokens, condition)
            rows.append(
                {
                    **shared,
                    "solver": solver,
                    "steps": num_steps,
                    "distance": distance,
                    "p_value": p_value,
                    "seconds": seconds,
                }
            )
    return rows


def energy_test(first: Tensor, second: Tensor, condition: Tensor) -> tuple[float, float, float]:
    """Energy distance, its p-value, and the distance that one in a hundred pairs of equal distributions exceeds.

    Conditions are appended as far-apart coordinates, and labels are exchanged within pairs of equal condition alone.
    """
    places = 4.0 * torch.nn.functional.one_hot(condition).float()
    points = torch.cat([torch.cat([first, places], dim=1), torch.cat([second, places], dim=1)])
    distances = torch.cdist(points, points)
    count = first.shape[0]
    generator = torch.Generator().manual_seed(5)
    signs = torch.where(torch.rand(NUM_PERMUTATIONS, count, generator=generator) < 0.5, -1.0, 1.0)
    signs = torch.cat([torch.ones(1, count), signs])
    labels = torch.cat([signs, -signs], dim=1) / count
    # 2 E|X - Y| - E|X - X'| - E|Y - Y'| as a quadratic form of the labels.
    values = -((labels @ distances) * labels).sum(dim=1)
    observed, permuted = float(values[0]), values[1:]
    p_value = (1 + int((permuted >= observed).sum())) / (1 + NUM_PERMUTATIONS)
    return observed, p_value, float(permuted.quantile(1.0 - SIGNIFICANT))


def _table(rows: list[dict[str, Any]]) -> Table:
    columns = ("data", "solver", "steps", "energy distance", "level of chance", "p", "differs", "finds a stretch of")
    table = Table(*columns, title="Samples against 1000 ancestral steps")
    for row in rows:
        table.add_row(
            row["data"],
            row["solver"],
            str(row["steps"]),
            f"{row['distance']:.2e}",
            f"{row['level_of_chance']:.2e}",
            f"{row['p_value']:.3f}",
            "yes" if row["p_value"] < SIGNIFICANT else "no",
            f"{row['resolution']}",
        )
    return table


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    names = list(dict.fromkeys(row["data"] for row in rows))
    figure, panels = plt.subplots(1, len(names), figsize=(9.6, 4.0), sharey=True, layout="constrained")
    colors = {"ddpm": "#1f4e8c", "ddim": "#c4622d", "dpm++": "#3d8c5a"}
    for axes, name in zip(panels, names, strict=True):
        mine = [row for row in rows if row["data"] == name]
        level = mine[0]["level_of_chance"]
        floor = level / 6
        for solver, color in colors.items():
            points = sorted((row["steps"], row["distance"]) for row in mine if row["solver"] == solver)
            points = [point for point in points if point[0] < 1000]
            axes.plot(
                [steps for steps, _ in points],
                [max(distance, floor) for _, distance in points],
                "o-",
                color=color,
                label=solver,
                lw=1.6,
                ms=5,
            )
        axes.axhspan(floor / 2, level, color="#dddddd", lw=0, zorder=0)
        axes.text(0.98, 0.03, "level of chance", transform=axes.transAxes, ha="right", color="#666666", fontsize=9)
        title = f"{name} (finds a stretch of {mine[0]['resolution']})"
        axes.set(xscale="log", yscale="log", xlabel="steps", title=title)
        ticks = [5, 10, 25, 50, 100, 200]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_ylim(bottom=floor * 0.8)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("energy distance to 1000 ancestral steps")
    panels[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    plt.close(figure)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4000, help="tokens in each set")
    parser.add_argument("--training-steps", type=int, default=4000)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--plot", type=Path, help="write the picture here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
