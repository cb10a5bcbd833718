"""How few steps a diffusion head needs for the next token, by how much of the picture is known already.

Command:   python examples/benchmarks/step_budget.py MODEL [--json FILE] [--plot docs/images/step-budget.png]
Shows:     for a trained model and held-out pictures of shapes: the distance between tokens drawn with few steps and
           with 1000, beside what two sets of 1000 steps show by chance, for several shares of known tokens
Runtime:   about twenty minutes on one core for a small head
Expected:  in units of a conditional's own spread, more steps are needed the more is known, since conditionals become
           narrow: seen on a model of shapes, and unlike what DiSA (arXiv 2505.20297) finds by looks

A context is a held-out picture of which a random share of the tokens is known, its caption, and one unknown position.
For each context some dozens of tokens are drawn. The distance is the energy distance within contexts; its p-value comes
from a permutation test, which exchanges draws of the same context alone (`sampling_steps.py`). What the head knows of
the data does not matter to the comparison: all tokens come from the same hidden vectors.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import torch
from rich.console import Console
from rich.table import Table
from sampling_steps import SIGNIFICANT, energy_test
from torch import Tensor

from fluid_core import FluidModel, FluidPipeline
from fluid_core.assembly import build_dataset
from fluid_core.configuration import ComponentChoice
from fluid_core.exchange import AttentionPattern, DatasetContext, SamplerSettings, SamplingRequest
from fluid_core.keyed_random import KeyedRandom

matplotlib.use("agg")
import matplotlib.pyplot as plt

SHARES = (0.0, 0.25, 0.5, 0.75, 0.95)
COUNTS = (10, 15, 25, 35, 50, 100)
DATA = ComponentChoice(name="shapes", options={"layout": "quadrants", "max_objects": 2, "combined_share": 0.1})
console = Console()


@torch.no_grad()
def main() -> None:
    """Draw, compare and report."""
    arguments = _arguments()
    model = FluidPipeline.from_pretrained(arguments.model).model
    if model.order.attention is not AttentionPattern.BIDIRECTIONAL:
        raise SystemExit("Expected a model with bidirectional attention, such as one trained in random order.")
    rows: list[dict[str, Any]] = []
    for share in SHARES:
        rows += compare(hidden_vectors(model, share, arguments.contexts), model, share, num_draws=arguments.draws)
    console.print(_table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    if arguments.plot:
        _plot(rows, arguments.plot)


def hidden_vectors(model: FluidModel, share: float, num_contexts: int) -> Tensor:
    """One hidden vector for each context: a picture of which a share of the tokens is known."""
    context = DatasetContext(image_size=model.tokenizer.image_size, split="validation", seed=0)
    data = build_dataset(DATA, context)
    items = [data[index] for index in range(num_contexts)]  # type: ignore[index]
    random = KeyedRandom(torch.arange(num_contexts) + 1)
    tokens = model.tokens(torch.stack([item.image for item in items]), random=random.child(0))
    length = tokens.shape[1]
    order = random.child(1).permutation(length)
    num_known = min(round(share * length), length - 1)
    known = torch.zeros(num_contexts, length, dtype=torch.bool).scatter(1, order[:, :num_known], True)
    text = model.align_text([item.caption for item in items])
    rows = model.token_embedding.canvas(tokens, known)
    keys_values = model.transformer.text(text.states, text.mask)
    return model.transformer.at(rows, keys_values, order[:, num_known : num_known + 1])[:, 0]


def compare(hidden: Tensor, model: FluidModel, share: float, *, num_draws: int) -> list[dict[str, Any]]:
    """Every number of steps against 1000, each with as many draws for every context."""
    condition = torch.arange(len(hidden)).repeat(num_draws)

    def draw(num_steps: int, seed: int) -> Tensor:
        # The whole process, from the last timestep, is what fewer steps are compared with.
        options = {"first_timestep": 999} if num_steps == 1000 else {}
        sampler = model.head.sampler(SamplerSettings(num_steps=num_steps, options=options))  # type: ignore[operator]
        random = KeyedRandom.from_generator(torch.Generator().manual_seed(seed), len(condition))
        drawn: Tensor = sampler(hidden[condition], SamplingRequest(random=random))
        return drawn

    whole = draw(1000, 0)
    again = draw(1000, 1)
    # In units of the draws themselves, so that narrow and wide conditionals are looked at alike.
    per_context = whole.view(num_draws, len(hidden), -1)
    scale = per_context.std(dim=0).mean(dim=1)[condition][:, None]
    rows = []
    for num_steps, tokens in [(1000, again), *((count, draw(count, 2 + count)) for count in COUNTS)]:
        distance, p_value, level = energy_test(whole / scale, tokens / scale, condition)
        rows.append(
            {
                "share_known": share,
                "steps": num_steps,
                "distance": distance,
                "p_value": p_value,
                "level_of_chance": level,
                "spread": float(scale.mean()),
            }
        )
        console.print(f"{share:.2f} known, {num_steps} steps: distance {distance:.2e}, p {p_value:.3f}")
    return rows


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("known", "spread of a token", "steps", "energy distance", "level of chance", "p", "differs")
    for row in rows:
        table.add_row(
            f"{row['share_known']:.2f}",
            f"{row['spread']:.2f}",
            str(row["steps"]),
            f"{row['distance']:.2e}",
            f"{row['level_of_chance']:.2e}",
            f"{row['p_value']:.3f}",
            "yes" if row["p_value"] < SIGNIFICANT else "no",
        )
    return table


def _plot(rows: list[dict[str, Any]], path: Path) -> None:
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    colors = plt.get_cmap("viridis")
    for index, share in enumerate(SHARES):
        mine = [row for row in rows if row["share_known"] == share and row["steps"] < 1000]
        level = mine[0]["level_of_chance"]
        axes.plot(
            [row["steps"] for row in mine],
            [max(row["distance"] / level, 0.1) for row in mine],
            "o-",
            color=colors(index / len(SHARES)),
            label=f"{share:.0%} known",
            lw=1.6,
            ms=5,
        )
    axes.axhspan(0.08, 1.0, color="#dddddd", lw=0, zorder=0)
    axes.text(0.98, 0.03, "chance", transform=axes.transAxes, ha="right", color="#666666", fontsize=9)
    axes.set(
        xscale="log", yscale="log", xlabel="steps", ylabel="energy distance to 1000 steps over the level of chance"
    )
    axes.set_xticks(COUNTS, [str(count) for count in COUNTS])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
    plt.close(figure)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a saved model with a diffusion head and random order")
    parser.add_argument("--contexts", type=int, default=24)
    parser.add_argument("--draws", type=int, default=100, help="tokens for each context")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--plot", type=Path, help="write the picture here")
    return parser.parse_args()


if __name__ == "__main__":
    main()
