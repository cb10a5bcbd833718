"""What each order looks like: at which step every position of an 8 x 8 grid is predicted, and how large the steps are.

Command:   python examples/order_pictures.py [--out docs/images]
Shows:     `orders.png`, one picture of each order, and `step-sizes.png`, the curves that cut an order into steps
Runtime:   seconds
Expected:  raster runs row by row, one token a step; all others fill the grid in 12 cosine steps, few tokens first

The confidence order needs a head to tell how sure it is. Here a made-up one stands in: surest at the edges, where
backgrounds are, and least sure of two patches.
"""

import argparse
import io
from pathlib import Path

import matplotlib
import torch
from PIL import Image
from torch import Tensor

from fluid_core import Grid, KeyedRandom
from fluid_core.protocols import OrderPolicy
from fluid_orders import (
    ConfidenceOrder,
    ConfidenceOrderOptions,
    FixedOrder,
    FixedOrderOptions,
    HaltonOrder,
    RandomOrder,
    RasterOrder,
    step_sizes_on_curve,
)
from fluid_orders.options import StepCurve

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

GRID = Grid(height=8, width=8)
NUM_STEPS = 12
CURVES: tuple[StepCurve, ...] = ("cosine", "arccos", "linear", "constant")
ORDERS: dict[str, OrderPolicy] = {
    "raster": RasterOrder(),
    "random, causal-random": RandomOrder(),
    "halton": HaltonOrder(),
    "confidence": ConfidenceOrder(ConfidenceOrderOptions(noise=1.0)),
    "fixed: centre-out": FixedOrder(),
    "fixed: spiral": FixedOrder(FixedOrderOptions(positions="spiral")),
    "fixed: columns": FixedOrder(FixedOrderOptions(positions="columns")),
    "fixed: reverse-raster": FixedOrder(FixedOrderOptions(positions="reverse-raster")),
}


def made_up_surety() -> Tensor:
    """Log-probabilities of a head that finds two round things hard, one in each half of the grid."""
    rows, columns = torch.arange(GRID.length) // GRID.width, torch.arange(GRID.length) % GRID.width
    surety = torch.zeros(GRID.length)
    for row, column in ((2.5, 2.0), (5.0, 5.5)):
        surety -= 8.0 * torch.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 4.0)
    return surety


def step_of_each_position(order: OrderPolicy) -> tuple[Tensor, int]:
    """The step, counted from 1, at which each position of the grid is kept, and the number of steps."""
    unknown = torch.ones(1, GRID.length, dtype=torch.bool)
    num_steps = None if isinstance(order, RasterOrder) else NUM_STEPS
    steps = order.generation(unknown, GRID, num_steps=num_steps, random=KeyedRandom(torch.tensor([4])))
    step_of, step = torch.zeros(GRID.length, dtype=torch.int64), 0
    while (positions := steps.propose()) is not None:
        step += 1
        keep = steps.accept(made_up_surety()[positions])
        step_of[positions[keep]] = step
    return step_of.view(GRID.height, GRID.width), step


def draw_orders(file: Path) -> None:
    """A panel for each order: the darker a position, the earlier it is predicted."""
    figure, panels = plt.subplots(2, 4, figsize=(9.6, 5.2), layout="constrained")
    for panel, (name, order) in zip(panels.flat, ORDERS.items(), strict=True):
        step_of, num_steps = step_of_each_position(order)
        # Not to the ends of the map, where numbers would be hard to read.
        panel.imshow(step_of, cmap="YlGnBu_r", norm=Normalize(1 - 0.1 * num_steps, num_steps * 1.15))
        for row in range(GRID.height):
            for column in range(GRID.width):
                step = int(step_of[row, column])
                colour = "white" if step < 0.55 * num_steps else "#10304f"
                panel.text(column, row, str(step), ha="center", va="center", fontsize=7, color=colour)
        panel.set_title(name, fontsize=10)
        panel.set_xticks(torch.arange(-0.5, GRID.width).tolist(), [])
        panel.set_yticks(torch.arange(-0.5, GRID.height).tolist(), [])
        panel.grid(color="white", linewidth=0.8)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
    _save(figure, file)


def draw_step_sizes(file: Path) -> None:
    """Tokens of each of 64 steps for 256 tokens, and how many are known after them."""
    figure, (sizes_panel, known_panel) = plt.subplots(1, 2, figsize=(9.6, 3.2), layout="constrained")
    numbers = range(1, 65)
    for curve in CURVES:
        sizes = torch.tensor(step_sizes_on_curve(256, 64, curve))
        sizes_panel.step(numbers, sizes, where="mid", label=curve, linewidth=1.4)
        known_panel.plot(numbers, sizes.cumsum(0), label=curve, linewidth=1.4)
    sizes_panel.set_ylabel("tokens in the step")
    sizes_panel.set_ylim(0, 13)
    sizes_panel.annotate("arccos ends with 28", (63.6, 12.9), (35, 11.9), fontsize=8, arrowprops={"arrowstyle": "->"})
    known_panel.set_ylabel("tokens known after it")
    for panel in (sizes_panel, known_panel):
        panel.set_xlabel("step")
        panel.spines[["top", "right"]].set_visible(False)
    known_panel.legend(frameon=False)
    _save(figure, file)


def _save(figure: Figure, file: Path) -> None:
    """With 64 colours, which is all the pictures need and takes a third of the space."""
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110)
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(64).save(file, optimize=True)


def main() -> None:
    """Draw both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder for the pictures")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, draw in (("orders.png", draw_orders), ("step-sizes.png", draw_step_sizes)):
        draw(out / name)
        print(out / name)


if __name__ == "__main__":
    main()
