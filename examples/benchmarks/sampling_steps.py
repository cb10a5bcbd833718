"""How few steps a head for continuous tokens needs: samples in few steps against samples in a thousand.

Command:   python examples/benchmarks/sampling_steps.py [--json FILE] [--plot docs/images/sampling-steps.png]
Shows:     how much of a token's spread each solver and spacing of steps keeps, if the network is exact; and for trained
           heads the distance between samples in few steps and in 1000, beside what two sets drawn alike show by chance
Runtime:   a quarter of an hour on two cores; --exact-only seconds
Expected:  quadratic steps keep the spread of narrow tokens in a fifth of the steps that even ones need; on trained
           heads the distance falls to the level of chance by 25 steps of either kind

Heads are trained here on made-up tokens of 16 channels, clusters or a curved sheet, each different for each of eight
conditions; a diffusion head is compared with 1000 ancestral steps, a flow head with 1000 steps of Euler. The distance
is the energy distance (Szekely and Rizzo, 2013), which is zero only for equal distributions; its p-value comes from a
permutation test. The resolution of the test is measured too: the smallest stretch of the samples that it finds.
"""

import argparse
import itertools
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
from fluid_heads import DiffusionHead, DiffusionOptions, FlowHead, FlowOptions
from fluid_heads.diffusion.noise_schedule import NoiseSchedule, spaced_timesteps
from fluid_heads.diffusion.solvers import Solver
from fluid_heads.flow.rectified_flow import time_grid
from fluid_heads.flow.solvers import integrate

matplotlib.use("agg")
import matplotlib.pyplot as plt

CHANNELS, CONDITION_WIDTH, NUM_CONDITIONS = 16, 32, 8
DIFFUSION_COURSES = {
    "ddpm, even": ({"solver": "ddpm", "spacing": "even"}, (10, 20, 50, 100)),
    "ddpm, quadratic": ({"solver": "ddpm"}, (5, 10, 15, 20, 25, 50)),
    "ddim, quadratic": ({"solver": "ddim"}, (5, 10, 20, 50)),
    "dpm++, quadratic": ({"solver": "dpm++"}, (5, 10, 15, 20, 25)),
}
# By evaluations of the network, of which Heun takes two a step.
FLOW_COURSES = {
    "euler, even": ({"solver": "euler", "shift": 1.0}, (10, 25, 50, 100)),
    "heun, shift 1/4": ({"solver": "heun", "shift": 0.25}, (5, 8, 13, 25)),
}
SPREADS = (1.0, 0.3, 0.1, 0.03)
STRETCHES = (1.01, 1.02, 1.03, 1.05, 1.08, 1.12, 1.2)
NUM_PERMUTATIONS = 400
SIGNIFICANT = 0.01
ContinuousHead = DiffusionHead | FlowHead
console = Console()


def main() -> None:
    """Compute, train, draw, compare and report."""
    arguments = _arguments()
    exact = spreads_kept()
    console.print(_exact_table(exact))
    if arguments.exact_only:
        return
    rows: list[dict[str, Any]] = []
    for kind, courses in (("diffusion", DIFFUSION_COURSES), ("flow", FLOW_COURSES)):
        for data in ("clusters", "sheet"):
            head, loss = train_head(kind, data, num_steps=arguments.training_steps)
            console.print(f"{kind}, {data}: trained to a loss of {loss:.3f}")
            rows += compare(head, kind, data, courses, num_samples=arguments.samples)
    console.print(_table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps({"exact": exact, "trained": rows}, indent=2) + "\n")
    if arguments.plot:
        _plot(exact, rows, arguments.plot)


def spreads_kept() -> list[dict[str, Any]]:
    """Standard deviation of samples over that of normal tokens, for a network that predicts them exactly.

    Every step of a solver is then linear, so that variances follow without a sample being drawn.
    """
    return [
        {"course": course, "steps": num_steps, "spread": spread, "kept": kept(options, num_steps, spread)}
        for courses, kept in ((DIFFUSION_COURSES, _spread_kept), (FLOW_COURSES, _spread_kept_by_flow))
        for course, (options, _) in courses.items()
        for num_steps in (10, 15, 20, 25, 35, 50, 100)
        for spread in SPREADS
    ]


def _spread_kept(options: dict[str, Any], num_steps: int, spread: float) -> float:
    settings = DiffusionOptions(num_sampling_steps=num_steps, **options)
    timesteps = spaced_timesteps(settings.spacing, num_steps, first_timestep=settings.first_timestep)
    schedule = NoiseSchedule.cosine(timesteps)
    weights = Solver(settings.solver, schedule).weights
    level = schedule.alphas_cumprod
    # The expected clean token is this share of the noisy one.
    share = level.sqrt() * spread**2 / (level * spread**2 + 1.0 - level)
    log_variance = _learned_log_variance(schedule, spread)
    # Covariance of x and of the clean token predicted a step before.
    covariance = torch.diag(torch.tensor([1.0, 0.0], dtype=torch.float64))
    for i in reversed(range(num_steps)):
        step = torch.stack(
            [
                torch.stack([weights.clean[i] * share[i] + weights.noisy[i], weights.previous[i]]),
                torch.stack([share[i], torch.zeros_like(share[i])]),
            ]
        )
        covariance = step @ covariance @ step.T
        if weights.adds_noise and i > 0:
            covariance[0, 0] += log_variance[i].exp()
    return float(covariance[0, 0].sqrt()) / spread


def _spread_kept_by_flow(options: dict[str, Any], num_steps: int, spread: float) -> float:
    times = time_grid(num_steps, shift=options["shift"])

    def velocity(step: int, x: Tensor) -> Tensor:
        # Expected noise less expected clean token, given their mixture at time t.
        t, variance = times[step], spread**2
        return x * (t - (1.0 - t) * variance) / ((1.0 - t) ** 2 * variance + t**2)

    one = torch.ones(1, 1, dtype=torch.float64)
    return float(integrate(velocity, times, one, solver=options["solver"])) / spread


def _learned_log_variance(schedule: NoiseSchedule, spread: float) -> Tensor:
    """What a head learns at 1000 timesteps, the best place between the two bounds, taken at the steps of `schedule`."""
    full = NoiseSchedule.cosine()
    level = full.alphas_cumprod
    left_open = spread**2 * (1.0 - level) / (level * spread**2 + 1.0 - level)
    best = (full.posterior_variance + full.posterior_mean_coef1.square() * left_open).log()
    lower, upper = full.posterior_log_variance_clipped, full.log_betas
    place = ((best - lower) / (upper - lower).clamp(min=1e-9)).clamp(0.0, 1.0)[schedule.timestep_map]
    return place * schedule.log_betas + (1.0 - place) * schedule.posterior_log_variance_clipped


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


def train_head(kind: str, data: str, *, num_steps: int) -> tuple[ContinuousHead, float]:
    """A head that has learned the made-up tokens, and the loss of its last steps."""
    torch.manual_seed(0)
    space = ContinuousTokens(grid=Grid(height=1, width=1), channels=CHANNELS)
    head: ContinuousHead = (
        DiffusionHead(space, CONDITION_WIDTH, DiffusionOptions(width=128, depth=3))
        if kind == "diffusion"
        else FlowHead(space, CONDITION_WIDTH, FlowOptions(width=128, depth=3))
    )
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=num_steps, pct_start=0.05)
    errors = []
    for _ in range(num_steps):
        condition = torch.randint(NUM_CONDITIONS, (256,), generator=generator)
        target = made_up_tokens(data, condition, generator)
        loss = head.loss(vectors(condition), target, random=KeyedRandom.from_generator(generator, 256))
        optimizer.zero_grad()
        loss.total.mean().backward()
        optimizer.step()
        schedule.step()
        errors.append(float(loss.total.mean()))
    last = errors[-200:]
    return head.eval(), sum(last) / len(last)


def vectors(condition: Tensor) -> Tensor:
    """A fixed hidden vector for each condition."""
    table = torch.randn(NUM_CONDITIONS, CONDITION_WIDTH, generator=torch.Generator().manual_seed(11))
    return table[condition]


def draw(head: ContinuousHead, options: dict[str, Any], *, num_steps: int, num_samples: int, seed: int) -> Tensor:
    """As many tokens for each condition, in the same order for every call."""
    condition = torch.arange(num_samples) % NUM_CONDITIONS
    sampler = head.sampler(SamplerSettings(num_steps=num_steps, options=options))
    random = KeyedRandom.from_generator(torch.Generator().manual_seed(seed), num_samples)
    tokens: Tensor = sampler(vectors(condition), SamplingRequest(random=random))
    return tokens


def compare(
    head: ContinuousHead, kind: str, data: str, courses: dict[str, Any], *, num_samples: int
) -> list[dict[str, Any]]:
    """Every course and number of steps against 1000 steps, and how small a difference would be found."""
    condition = torch.arange(num_samples) % NUM_CONDITIONS
    # The whole process, from the last timestep, is what fewer steps are compared with.
    whole = {"solver": "ddpm", "first_timestep": 999} if kind == "diffusion" else {"solver": "euler", "shift": 1.0}
    reference = draw(head, whole, num_steps=1000, num_samples=num_samples, seed=0)
    again = draw(head, whole, num_steps=1000, num_samples=num_samples, seed=1)
    chance, p_value, level = energy_test(reference, again, condition)
    found = [s for s in STRETCHES if energy_test(reference, s * again, condition)[1] < SIGNIFICANT]
    shared = {"head": kind, "data": data, "level_of_chance": level, "resolution": min(found) if found else None}
    rows = [{**shared, "course": "the same", "steps": 1000, "distance": chance, "p_value": p_value, "seconds": None}]
    for course, (options, counts) in courses.items():
        for num_steps in counts:
            started = time.perf_counter()
            tokens = draw(head, options, num_steps=num_steps, num_samples=num_samples, seed=2)
            seconds = time.perf_counter() - started
            distance, p_value, _ = energy_test(reference, tokens, condition)
            measured = {"distance": distance, "p_value": p_value, "seconds": seconds}
            rows.append({**shared, "course": course, "steps": num_steps, **measured})
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


def _exact_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("course", "steps", *map(str, SPREADS), title="Spread that samples keep, by the spread of the tokens")
    for (course, steps), group in itertools.groupby(rows, key=lambda row: (row["course"], row["steps"])):
        table.add_row(course, str(steps), *(f"{row['kept']:.3f}" for row in group))
    return table


def _table(rows: list[dict[str, Any]]) -> Table:
    columns = ("head", "data", "course", "steps", "energy distance", "level of chance", "p", "differs", "finds")
    table = Table(*columns, title="Samples in few steps against samples in 1000")
    for row in rows:
        table.add_row(
            row["head"],
            row["data"],
            row["course"],
            str(row["steps"]),
            f"{row['distance']:.2e}",
            f"{row['level_of_chance']:.2e}",
            f"{row['p_value']:.3f}",
            "yes" if row["p_value"] < SIGNIFICANT else "no",
            f"x {row['resolution']}",
        )
    return table


def _plot(exact: list[dict[str, Any]], rows: list[dict[str, Any]], path: Path) -> None:
    figure, panels = plt.subplots(1, 3, figsize=(13.2, 4.4), layout="constrained")
    _plot_exact(exact, panels[0])
    colors = dict(zip(DIFFUSION_COURSES, ("#9db7d5", "#1f4e8c", "#c4622d", "#3d8c5a"), strict=True))
    for axes, data in zip(panels[1:], ("clusters", "sheet"), strict=True):
        mine = [row for row in rows if row["data"] == data and row["head"] == "diffusion"]
        level = mine[0]["level_of_chance"]
        floor = level / 6
        for course, color in colors.items():
            points = sorted((row["steps"], max(row["distance"], floor)) for row in mine if row["course"] == course)
            axes.plot(*zip(*points, strict=True), "o-", color=color, label=course, lw=1.6, ms=5)
        axes.axhspan(floor / 2, level, color="#dddddd", lw=0, zorder=0)
        axes.text(0.98, 0.03, "level of chance", transform=axes.transAxes, ha="right", color="#666666", fontsize=9)
        title = f"Trained on a {data.rstrip('s')}" if data == "sheet" else "Trained on clusters"
        axes.set(yscale="log", ylabel="energy distance to 1000 steps")
        axes.set_title(f"{title} (finds a stretch of {mine[0]['resolution']})", fontsize=10.5)
        axes.set_ylim(bottom=floor * 0.8)
    panels[1].legend(frameon=False)
    for axes in panels:
        axes.set(xscale="log", xlabel="steps")
        ticks = [5, 10, 20, 50, 100]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    plt.close(figure)


def _plot_exact(rows: list[dict[str, Any]], axes: Any) -> None:
    for course, color in (("ddpm, even", "#9db7d5"), ("ddpm, quadratic", "#1f4e8c")):
        for spread, style in zip(SPREADS[1:], ("-", "--", ":"), strict=True):
            points = [(r["steps"], r["kept"]) for r in rows if r["course"] == course and r["spread"] == spread]
            axes.plot(*zip(*points, strict=True), style, color=color, lw=1.8, label=f"{course}, spread {spread}")
    axes.axhline(1.0, color="#666666", lw=0.8)
    axes.set(ylabel="spread kept", ylim=(0.0, 1.04))
    axes.set_title("Exact network, normal tokens", fontsize=10.5)
    axes.legend(frameon=False, fontsize=8, loc="lower right")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=4000, help="tokens in each set")
    parser.add_argument("--exact-only", action="store_true", help="train and draw nothing")
    parser.add_argument("--training-steps", type=int, default=4000)
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--plot", type=Path, help="write the picture here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
