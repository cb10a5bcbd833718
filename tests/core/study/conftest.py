"""Made-up rows of a study whose truth is known, and a study small enough to be run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluid_core.study.rows import loss_kind

TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
PARAMETERS = {"xs": 4e5, "s": 9e5, "m": 2e6, "l": 3.5e6, "xl": 6.5e6}
PARTS = {
    "discrete-raster": ("patch-codebook", "softmax", "raster", 4.0, 0.08),
    "discrete-random": ("patch-codebook", "softmax", "random", 3.8, 0.06),
    "continuous-raster": ("pixel-patches", "diffusion", "raster", 0.25, 0.05),
    "continuous-random": ("pixel-patches", "diffusion", "random", 0.3, 0.03),
}


def made_up_rows(
    scores: dict[str, float],
    *,
    sizes: tuple[str, ...] = tuple(PARAMETERS),
    seeds: tuple[int, ...] = (0,),
    prompts_per_task: int = 100,
    seed_deviation: float = 0.0,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Rows of variants whose chance to draw a prompt right is `scores` at the first size and grows with size.

    Losses follow the power laws in `PARTS`, with 0.3% noise. Prompts differ in how hard they are, for all alike.
    """
    rng = np.random.default_rng(seed)
    hard = rng.normal(0.0, 0.1, size=(len(TASKS), prompts_per_task))
    rows = []
    for step, size in enumerate(sizes):
        for variant, score in scores.items():
            tokenizer, head, order, loss, exponent = PARTS[variant]
            for one in seeds:
                shift = rng.normal(0.0, seed_deviation)
                right = rng.random(hard.shape) < score + 0.06 * step + hard + shift
                rows.append(
                    {
                        "run": f"{variant}--{size}--seed{one}",
                        "variant": variant,
                        "size": size,
                        "seed": one,
                        "tokenizer": tokenizer,
                        "head": head,
                        "order": order,
                        "parameters": int(PARAMETERS[size] * (1.1 if head == "diffusion" else 1.0)),
                        "steps": 3000,
                        "images_seen": 96000,
                        "validation_loss": loss
                        * (PARAMETERS[size] / 1e6) ** -exponent
                        * float(np.exp(rng.normal(0.0, 0.003))),
                        "validation_loss_kind": loss_kind(head),
                        "scores": {
                            **{task: float(right[i].mean()) for i, task in enumerate(TASKS)},
                            "overall": float(right.mean()),
                        },
                        "chance": {**dict.fromkeys(TASKS, 0.05), "overall": 0.05},
                        "guidance_scale": 1.5,
                        "order_steps": 16,
                        "by_order_steps": {}
                        if order == "raster"
                        else {str(n): {"overall": float(right.mean()) * (1 - 0.5 / n)} for n in (2, 4, 8)},
                        "by_head_steps": {}
                        if head == "softmax"
                        else {str(n): {"overall": float(right.mean()) * (1 - 1 / n)} for n in (5, 10, 30)},
                        "images_per_second": 100.0,
                        "training_seconds": 960.0,
                        "verdicts": [bool(value) for value in right.flatten()],
                        "tasks": [task for task in TASKS for _ in range(prompts_per_task)],
                        "shown": [],
                    }
                )
    return rows


@pytest.fixture(scope="session")
def make_rows():
    """The function `made_up_rows`."""
    return made_up_rows


STUDY = """
title = "A study for tests"
base = "base.toml"
seeds = [0]

[budget]
images = 8

[parts]
ids = { name = "patch-codebook", options = { image_size = 16, patch_size = 8, vocabulary_size = 16 } }
patches = { name = "pixel-patches", options = { image_size = 16, patch_size = 8 } }
short = { name = "diffusion", options = { depth = 1, num_sampling_steps = 3 } }

[variants]
discrete-raster = { tokenizer = "ids", head = "softmax", order = "raster" }
continuous-random = { tokenizer = "patches", head = "short", order = "random" }

[sizes]
a = { backbone = { width = 16, depth = 1, num_heads = 2, aligner_depth = 1 } }
b = { backbone = { width = 24, depth = 1, num_heads = 2, aligner_depth = 1 } }

[evaluation]
num_validation_images = 6
prompts_per_task = 2
order_steps = [2]
head_steps = [2]
"""

BASE = """
sample_prompts = ["a red circle"]
[tokenizer]
name = "pixel-patches"
options = { image_size = 32, patch_size = 4 }
[text_encoder]
name = "bytes"
options = { width = 16, merge_words = true, num_ngram_buckets = 64 }
[order]
name = "random"
[head]
name = "flow"
options = { depth = 5, num_sampling_steps = 30 }
[backbone]
size = "tiny"
[data]
name = "shapes"
options = { num_examples = 30, num_validation_examples = 10 }
[training]
num_steps = 6000
batch_size = 4
warmup_steps = 100
sample_every = 600
checkpoint_every = 600
num_validation_images = 4
num_fit_images = 40
device = "cpu"
"""


@pytest.fixture
def study_file(tmp_path) -> Path:
    """The file of a study of four runs of two steps."""
    (tmp_path / "base.toml").write_text(BASE)
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path
