"""The paper's two-by-two study in small: {discrete, continuous} tokens x {raster, random} order.

Command:   python examples/ablation.py --out runs/ablation --steps 600
Shows:     that tokens, order and head are three independent choices; the four models differ in three names
Runtime:   grows with --steps; a variant that is finished is not trained again, one that was interrupted continues
Leaves:    report.md, report.json (one row per model) and comparison.png in the output folder, each run below runs/
Expected:  losses fall for all four. With this little training nothing follows about the paper's findings. Cross-entropy
           and noise-prediction losses have different units and stand apart
"""

import argparse
import json
from pathlib import Path
from typing import Any

import attrs
import torch
from PIL import Image
from rich.console import Console

from fluid_core import FluidConfig, FluidPipeline, Trainer, load_config
from fluid_core.assembly import build_dataset
from fluid_core.configuration import BackboneConfig, ComponentChoice, config_from_json
from fluid_core.contact_sheet import contact_sheet, save_image
from fluid_core.data.captioned_images import JudgedPrompt, JudgedPrompts
from fluid_core.errors import CheckpointMismatchError
from fluid_core.evaluation.prompt_scores import draw_prompts, judge_pictures
from fluid_core.exchange import DatasetContext
from fluid_core.pipeline import to_pil
from fluid_core.training.metrics import read_metrics

CONFIG = Path(__file__).parent / "configs" / "shapes.toml"
CONTINUOUS = (
    ComponentChoice(name="pixel-patches", options={"image_size": 32, "patch_size": 4}),
    ComponentChoice(name="diffusion", options={"depth": 3, "token_scale": 0.2, "linear_skip": True}),
)
DISCRETE = (
    ComponentChoice(name="patch-codebook", options={"image_size": 32, "patch_size": 4, "vocabulary_size": 512}),
    ComponentChoice(name="softmax"),
)
RASTER, RANDOM = ComponentChoice(name="raster"), ComponentChoice(name="random")
VARIANTS = {
    "discrete-raster": (*DISCRETE, RASTER),
    "discrete-random": (*DISCRETE, RANDOM),
    "continuous-raster": (*CONTINUOUS, RASTER),
    "continuous-random": (*CONTINUOUS, RANDOM),
}
SAMPLING = {"guidance_scale": 3.0, "temperature": 0.8}
NUM_PICTURES = 6
console = Console()


def main() -> None:
    """Train, judge and compare the four models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the study")
    parser.add_argument("--steps", type=int, default=600, help="training steps of each model")
    parser.add_argument("--size", default="tiny", help="named size of the backbone")
    parser.add_argument("--batch-size", type=int, default=32, help="images in a step")
    parser.add_argument("--prompts-per-task", type=int, default=16, help="prompts judged for each of the six tasks")
    parser.add_argument("--head-steps", type=int, default=50, help="denoising steps for each continuous token")
    arguments = parser.parse_args()

    rows, pictures, labels = [], [], []
    for name in VARIANTS:
        config = _config(name, arguments)
        console.rule(name)
        folder = _train(config, arguments.out / "runs" / name)
        row, drawn, prompts = _measure(config, folder, arguments.prompts_per_task)
        rows.append(row)
        pictures += drawn
        labels += [f"{name}: {prompt.text}" for prompt in prompts]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "report.json").write_text(json.dumps(rows, indent=2) + "\n")
    (arguments.out / "report.md").write_text(_report(rows))
    sheet = contact_sheet(pictures, labels, num_columns=NUM_PICTURES, title=f"{arguments.steps} steps each")
    save_image(sheet, arguments.out / "comparison.png")
    console.print(f"Look at {arguments.out / 'report.md'} and {arguments.out / 'comparison.png'}.")


def _config(name: str, arguments: argparse.Namespace) -> FluidConfig:
    """One variant: the configuration of the demo with other parts, and the same budget for all."""
    base = load_config(CONFIG)
    assert base.training is not None
    tokenizer, head, order = VARIANTS[name]
    if head.name == "diffusion":
        head = attrs.evolve(head, options={**head.options, "num_sampling_steps": arguments.head_steps})
    training = attrs.evolve(
        base.training,
        num_steps=arguments.steps,
        batch_size=arguments.batch_size,
        warmup_steps=min(base.training.warmup_steps, max(1, arguments.steps // 10)),
        checkpoint_every=max(1, arguments.steps // 2),
        sample_every=0,
    )
    return attrs.evolve(
        base,
        tokenizer=tokenizer,
        head=head,
        order=order,
        backbone=BackboneConfig(size=arguments.size),
        training=training,
    )


def _train(config: FluidConfig, folder: Path) -> Path:
    """Train a variant, or continue one that was interrupted; a finished one has nothing left to do.

    Raises `CheckpointMismatchError` if the folder holds a run with other settings: its figures would be reported as
    this one's.
    """
    saved = folder / "config.json"
    if (folder / "model").exists():
        if config_from_json(saved.read_text()) != config:
            raise CheckpointMismatchError(
                f"{folder} holds a finished run with other settings. Give another --out, or delete that folder."
            )
    else:
        Trainer(config, folder, resume=True).train()
    return folder


def _measure(
    config: FluidConfig, folder: Path, num_per_task: int
) -> tuple[dict[str, Any], list[Image.Image], list[JudgedPrompt]]:
    """A row of the report, and the first pictures of it."""
    assert config.data is not None
    assert config.training is not None
    pipeline = FluidPipeline.from_pretrained(folder / "model")
    context = DatasetContext(image_size=pipeline.model.tokenizer.image_size, split="validation")
    data = build_dataset(config.data, context)
    assert isinstance(data, JudgedPrompts)
    prompts = data.evaluation_prompts(num_per_task=num_per_task, seed=1)
    images = draw_prompts(pipeline, prompts, seed=0, **SAMPLING)
    scores = judge_pictures(data, prompts, images)
    metrics = read_metrics(folder / "metrics.jsonl")
    row = {
        "tokenizer": config.tokenizer.name,
        "head": config.head.name,
        "order": config.order.name,
        "parameters": sum(p.numel() for p in pipeline.model.parameters() if p.requires_grad),
        "steps": config.training.num_steps,
        "validation_loss": next(r["validation_loss"] for r in reversed(metrics) if "validation_loss" in r),
        "validation_loss_kind": "cross_entropy" if config.head.name == "softmax" else "noise_prediction",
        "scores": {**scores.by_task, "overall": scores.overall},
        "images_per_second": next(r["images_per_second"] for r in reversed(metrics) if "images_per_second" in r),
        "sampling": SAMPLING,
    }
    # One prompt of each task, the same for every model.
    first = [next(i for i, prompt in enumerate(prompts) if prompt.task == task) for task in data.tasks][:NUM_PICTURES]
    return row, to_pil((images[torch.tensor(first)] + 1.0) / 2.0), [prompts[i] for i in first]


def _report(rows: list[dict[str, Any]]) -> str:
    tasks = list(rows[0]["scores"])
    head = ["tokens", "order", "parameters", "cross-entropy", "noise-prediction loss", *tasks, "images/s"]
    lines = ["# Tokens and orders", "", f"{rows[0]['steps']} steps each, the same batches of the same data.", ""]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        is_entropy = row["validation_loss_kind"] == "cross_entropy"
        loss = f"{row['validation_loss']:.4f}"
        cells = [f"{row['tokenizer']} + {row['head']}", row["order"], f"{row['parameters'] / 1e6:.2f}M"]
        cells += [loss, ""] if is_entropy else ["", loss]
        cells += [f"{row['scores'][task]:.2f}" for task in tasks] + [f"{row['images_per_second']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        "Cross-entropy (nats per id) and the diffusion head's loss (noise prediction plus variational bound) can not",
        "be compared with each other; nor can one loss between orders, which predict different sets of tokens.",
        "",
        "![the same prompts drawn by each model](comparison.png)",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
