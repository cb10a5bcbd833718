"""Train a small text-to-image model on this machine and look at what it draws.

Command:   make demo          (or: python examples/demo.py --out runs/demo --minutes 8)
Shows:     the whole path: captions and pictures -> continuous tokens -> random order -> backbone -> flow-matching head
Runtime:   the minutes given: training ends by the clock, its learning rate with it, and what remains is for drawing
Leaves:    contact_sheet.png (prompts and pictures, marked right or wrong by the judge), loss.png, scores.json and
           report.md in the output folder, and the model in model/: fluid sample runs/demo "a red circle"
Expected:  on two cores single objects, counts, two objects and colours mostly right, colours of two and positions a
           third; more cores or a faster machine train on more pictures and draw better
"""

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import matplotlib
from rich.console import Console
from rich.table import Table

from fluid_core import FluidPipeline, load_config
from fluid_core.assembly import build_dataset
from fluid_core.contact_sheet import contact_sheet, save_image
from fluid_core.data.batches import readable_items, stack
from fluid_core.data.captioned_images import JudgedPrompts
from fluid_core.evaluation.prompt_scores import PromptScores, chance_scores, draw_prompts, judge_pictures
from fluid_core.exchange import DatasetContext
from fluid_core.pipeline import to_pil
from fluid_core.training.sight.metrics import read_metrics

matplotlib.use("agg")
import matplotlib.pyplot as plt

CONFIG = Path(__file__).parent / "configs" / "shapes.toml"
SAMPLING = {"guidance_scale": 1.5, "temperature": 0.8}
# Left for starting, fitting the tokenizer, and drawing the pictures that are scored.
OTHER_MINUTES = 0.9
# A model this small gains more from a process on every core than from several threads in one process.
MOST_PROCESSES = 4
SHEET_PROMPTS_PER_TASK = 4
console = Console()


def main() -> None:
    """Run the demo."""
    arguments = _arguments()
    started = time.perf_counter()
    train(arguments)

    pipeline = FluidPipeline.from_pretrained(arguments.out / "model")
    data = _validation_data(pipeline)
    assert isinstance(data, JudgedPrompts)
    prompts = data.evaluation_prompts(num_per_task=arguments.prompts_per_task, seed=1)
    console.print(f"drawing {len(prompts)} prompts to score")
    images = draw_prompts(pipeline, prompts, seed=0, **SAMPLING)
    scores = judge_pictures(data, prompts, images)
    chance = chance_scores(data, prompts, stack(readable_items(data, 500).items).images, seed=0)

    chosen = _sheet_choice([prompt.task for prompt in prompts])
    pictures = to_pil((images[chosen] + 1.0) / 2.0)
    trained = [row for row in read_metrics(arguments.out / "metrics.jsonl") if "images_per_second" in row][-1]
    sheet = contact_sheet(
        pictures,
        [prompts[i].text for i in chosen],
        marks=[scores.verdicts[i].correct for i in chosen],
        title=f"Drawn by a model trained for {trained['seconds'] / 60:.1f} minutes on this machine",
    )
    save_image(sheet, arguments.out / "contact_sheet.png")
    _plot_loss(arguments.out)
    _report(arguments.out, scores, chance, trained["step"], trained["images_per_second"], time.perf_counter() - started)


def train(arguments: argparse.Namespace) -> None:
    """`fluid train` in as many processes as there are cores, up to four, for a time or a number of steps."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={arguments.processes}", "-m", "fluid_core.cli"]
    command += ["train", str(CONFIG), *_overrides(arguments), "--out", str(arguments.out)]
    threads = max(1, _num_cores() // arguments.processes)
    finished = subprocess.run(command, env={"OMP_NUM_THREADS": str(threads), **os.environ}, check=False)
    if finished.returncode:
        raise SystemExit(finished.returncode)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for everything the demo makes")
    parser.add_argument("--minutes", type=float, default=7.8, help="time for all of it, more than 1.5")
    parser.add_argument("--steps", type=int, help="training steps, instead of a time")
    parser.add_argument(
        "--processes",
        type=int,
        default=min(MOST_PROCESSES, _num_cores()),
        help="processes that train together; default: one per core, up to four",
    )
    parser.add_argument("--prompts-per-task", type=int, default=12, help="prompts scored for each of the six tasks")
    parser.add_argument("--order-steps", type=int, help="steps in which a picture's tokens are drawn; default: all")
    parser.add_argument("--head-steps", type=int, help="denoising steps for each token; default: the configuration's")
    arguments = parser.parse_args()
    if arguments.minutes < OTHER_MINUTES + 0.3:
        parser.error(f"--minutes must be at least {OTHER_MINUTES + 0.3:g}, found {arguments.minutes:g}")
    # A demo that was run before is kept.
    wanted, number = arguments.out, 2
    while arguments.out.exists():
        arguments.out = wanted.with_name(f"{wanted.name}-{number}")
        number += 1
    return arguments


def _overrides(arguments: argparse.Namespace) -> list[str]:
    """Changes to the configuration: the budget, and the steps in which every picture is drawn."""
    if arguments.steps is None:
        changes = [f"training.max_minutes={arguments.minutes - OTHER_MINUTES}"]
    else:
        quarter = max(1, math.ceil(arguments.steps / 4))
        changes = [
            f"training.num_steps={arguments.steps}",
            f"training.warmup_steps={min(100, quarter)}",
            f"training.sample_every={quarter}",
            f"training.checkpoint_every={quarter}",
        ]
    if arguments.order_steps is not None:
        changes.append(f"order.options.num_steps={arguments.order_steps}")
    if arguments.head_steps is not None:
        changes.append(f"head.options.num_sampling_steps={arguments.head_steps}")
    return changes


def _validation_data(pipeline: FluidPipeline) -> object:
    data = load_config(CONFIG).data
    assert data is not None
    return build_dataset(data, DatasetContext(image_size=pipeline.model.tokenizer.image_size, split="validation"))


def _num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _sheet_choice(tasks: list[str]) -> list[int]:
    """The first prompts of each task: chosen before anything is drawn, so the sheet is no selection of the best."""
    chosen: list[int] = []
    for task in dict.fromkeys(tasks):
        chosen += [index for index, name in enumerate(tasks) if name == task][:SHEET_PROMPTS_PER_TASK]
    return chosen


def _plot_loss(folder: Path) -> None:
    rows = read_metrics(folder / "metrics.jsonl")
    trained = [row for row in rows if "loss" in row]
    validated = [row for row in rows if "validation_loss" in row]
    figure, axes = plt.subplots(figsize=(7.0, 4.2), layout="constrained")
    axes.plot([r["step"] for r in trained], [r["mse"] for r in trained], color="#9db7d5", lw=1.2, label="training")
    axes.plot(
        [r["step"] for r in validated],
        [r["validation_mse"] for r in validated],
        "o-",
        color="#1f4e8c",
        label="validation, averaged weights",
    )
    axes.set(xlabel="step", ylabel="error of the prediction (mean square)", title="Loss of the head")
    axes.set_yscale("log")
    axes.grid(alpha=0.3, which="both")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(folder / "loss.png", dpi=130)
    plt.close(figure)


def _report(
    folder: Path, scores: PromptScores, chance: PromptScores, num_steps: int, images_per_second: float, seconds: float
) -> None:
    table = Table("task", "score", "chance", title="Share of pictures that show what the prompt says")
    lines = [
        "# Demo",
        "",
        "![prompts and pictures](contact_sheet.png)",
        "",
        "| task | score | chance |",
        "|---|---|---|",
    ]
    for task, score in {**scores.by_task, "overall": scores.overall}.items():
        by_chance = chance.overall if task == "overall" else chance.by_task[task]
        table.add_row(task, f"{score:.2f}", f"{by_chance:.2f}")
        lines.append(f"| {task} | {score:.2f} | {by_chance:.2f} |")
    lines += ["", f"{num_steps} steps, {images_per_second:.0f} images/s, {seconds / 60:.1f} minutes in all.", ""]
    lines += ["Chance is the score of random pictures of the data set.", "", "![loss](loss.png)", ""]
    (folder / "report.md").write_text("\n".join(lines))
    figures = {
        "scores": scores.by_task,
        "overall": scores.overall,
        "chance": chance.by_task,
        "chance_overall": chance.overall,
        "steps": num_steps,
        "images_per_second": images_per_second,
        "seconds": seconds,
        "sampling": SAMPLING,
    }
    (folder / "scores.json").write_text(json.dumps(figures, indent=2) + "\n")
    console.print(table)
    console.print(
        f"Look at {folder / 'contact_sheet.png'} and {folder / 'loss.png'}. {seconds / 60:.1f} minutes in all."
    )
    console.print(f'Draw more: fluid sample {folder} "a green cross" --guidance 1.5', highlight=False)


if __name__ == "__main__":
    main()
