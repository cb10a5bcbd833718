"""How fast a cache of tokens is read, and how much faster training from it is than from images.

Command:   python examples/benchmarks/cache.py [--json FILE] [--seconds 8] [--rounds 3] [--autoencoder FOLDER]
Shows:     images per second, medians over rounds in which all cases take turns in one process
Runtime:   three minutes on two cores
Expected:  reading a cache is far ahead of reading pictures; training gains what encoding and decoding would cost

Pictures are PNG files of noise and colour at twice the size that is trained on, in a folder with captions. Two
tokenizers: `pixel-patches`, which costs next to nothing, and an `AutoencoderKL` with the architecture of Stable
Diffusion's at a quarter of its width (or the one in --autoencoder), with random weights: speed does not depend on them.
The text encoder is a BERT of 4 layers, 256 wide, with random weights, frozen. The model is the same in all cases and
small, which is the case where the cost of encoding shows most.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table

from fluid_core.configuration import BackboneConfig, ComponentChoice, FluidConfig, TrainingConfig
from fluid_core.data.open_batches import Batches, open_batches
from fluid_core.data.token_cache.manifest import Manifest
from fluid_core.data.token_cache.options import CacheBuildOptions
from fluid_core.training.cache_building import cache_builder
from fluid_core.training.sight.progress import TrainingProgress
from fluid_core.training.trainer import Trainer

SIZE, BATCH_SIZE, NUM_PICTURES = 64, 16, 512
console = Console()


@attrs.frozen(kw_only=True)
class Case:
    """One way to feed one model."""

    tokenizer: str
    source: str
    config: FluidConfig


class Silent(TrainingProgress):
    """Steps are taken one by one here, outside the loop that shows them."""

    def stepped(self, step: int, loss: float) -> None:
        """Nothing."""


def write_pictures(folder: Path) -> None:
    """A folder of PNG files with captions of three to twelve words."""
    folder.mkdir()
    random = np.random.default_rng(0)
    words = ["a", "red", "blue", "small", "large", "circle", "square", "star", "above", "below", "beside", "two"]
    lines = []
    for index in range(NUM_PICTURES):
        coarse = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(coarse).resize((2 * SIZE, 2 * SIZE), Image.Resampling.BICUBIC)
        noise = random.integers(-12, 13, (2 * SIZE, 2 * SIZE, 3))
        Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8)).save(folder / f"{index:04d}.png")
        caption = " ".join(random.choice(words, random.integers(3, 13)))
        lines.append(json.dumps({"file_name": f"{index:04d}.png", "text": caption}) + "\n")
    (folder / "metadata.jsonl").write_text("".join(lines))


def write_autoencoder(folder: Path) -> None:
    """Stable Diffusion's architecture at a quarter of its width."""
    import diffusers

    torch.manual_seed(0)
    model: Any = diffusers.AutoencoderKL(  # type: ignore[no-untyped-call]
        latent_channels=4,
        block_out_channels=(32, 64, 128, 128),
        layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    model.save_pretrained(folder)


def write_text_encoder(folder: Path) -> None:
    """A small BERT over the letters of captions."""
    from transformers import BertConfig, BertModel, BertTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    config = BertConfig(
        vocab_size=len(words), hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    BertTokenizer(vocab={word: index for index, word in enumerate(words)}).save_pretrained(folder)


def configuration(folder: Path, tokenizer: str, autoencoder: Path) -> FluidConfig:
    """Training on the pictures with one of the tokenizers."""
    options: dict[str, Any] = {"image_size": SIZE, "patch_size": 8}
    if tokenizer == "kl-autoencoder":
        options = {"image_size": SIZE, "path": str(autoencoder), "patch_size": 1}
    return FluidConfig(
        tokenizer=ComponentChoice(name=tokenizer, options=options),
        text_encoder=ComponentChoice(name="transformers-encoder", options={"path": str(folder / "bert")}),
        order=ComponentChoice(name="random"),
        head=ComponentChoice(name="flow", options={"depth": 3, "width": 128}),
        backbone=BackboneConfig(width=128, depth=4, num_heads=4, aligner_depth=1),
        data=ComponentChoice(name="image-folder", options={"path": str(folder / "pictures"), "validation_fraction": 0}),
        training=TrainingConfig(
            num_steps=10**6, batch_size=BATCH_SIZE, sample_every=0, num_validation_images=0, num_fit_images=64
        ),
    )


def from_cache(config: FluidConfig, path: Path) -> FluidConfig:
    """The same training from a cache."""
    return attrs.evolve(config, data=ComponentChoice(name="token-cache", options={"path": str(path)}))


def images_per_second(work: Callable[[int], Any], first_step: int, seconds: float) -> tuple[float, int]:
    """How fast `work` takes steps, for about so many seconds, and the step after the last one."""
    work(first_step)
    started, step = time.perf_counter(), first_step + 1
    while time.perf_counter() - started < seconds:
        work(step)
        step += 1
    return (step - first_step - 1) * BATCH_SIZE / (time.perf_counter() - started), step


def measure(cases: list[Case], folder: Path, *, seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Reading alone and training, all cases in turns."""
    trainers = [
        Trainer(case.config, folder / f"run-{number}", progress=Silent(silent=True))
        for number, case in enumerate(cases)
    ]
    loaders: list[Batches] = [open_batches(one.train_data, batch_size=BATCH_SIZE, seed=0) for one in trainers]
    steps = [0] * len(cases)
    found: list[dict[str, list[float]]] = [{"reading": [], "training": []} for _ in cases]
    for _ in range(rounds):
        for number, (trainer, loader) in enumerate(zip(trainers, loaders, strict=True)):

            def train(step: int, trainer: Trainer = trainer, loader: Batches = loader) -> None:
                trainer.step = step
                trainer._train_step(loader, 0.0)

            for what, work in (("reading", loader.batch), ("training", train)):
                speed, steps[number] = images_per_second(work, steps[number], seconds)
                found[number][what].append(speed)
    for loader in loaders:
        loader.close()
    return [
        {
            "tokenizer": case.tokenizer,
            "from": case.source,
            **{what: round(statistics.median(speeds), 1) for what, speeds in found[number].items()},
            "rounds": found[number],
        }
        for number, case in enumerate(cases)
    ]


def build(config: FluidConfig, path: Path, text: bool) -> tuple[Manifest, float]:
    """Build a cache; images per second while it was written."""
    builder = cache_builder(config, path, CacheBuildOptions(batch_size=BATCH_SIZE, text=text))
    started = time.perf_counter()
    manifest = builder.build()
    return manifest, NUM_PICTURES / (time.perf_counter() - started)


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--autoencoder", type=Path, help="folder of a diffusers AutoencoderKL of your own")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_pictures(folder / "pictures")
        write_text_encoder(folder / "bert")
        autoencoder = arguments.autoencoder or folder / "autoencoder"
        if arguments.autoencoder is None:
            write_autoencoder(autoencoder)
        cases, builds = [], []
        for tokenizer in ("pixel-patches", "kl-autoencoder"):
            config = configuration(folder, tokenizer, autoencoder)
            cases.append(Case(tokenizer=tokenizer, source="images", config=config))
            for source, text in (("cache", True), ("cache, captions alone", False)):
                path = folder / f"cache-{tokenizer}-{text}"
                manifest, speed = build(config, path, text)
                builds.append(
                    {
                        "tokenizer": tokenizer,
                        "holds": source,
                        "built": round(speed, 1),
                        "bytes_per_image": manifest.num_bytes // NUM_PICTURES,
                    }
                )
                cases.append(Case(tokenizer=tokenizer, source=source, config=from_cache(config, path)))
        found = measure(cases, folder, seconds=arguments.seconds, rounds=arguments.rounds)
    show(builds, "images/s while building")
    show(found, f"images/s, batches of {BATCH_SIZE}, {SIZE} x {SIZE} pixels, {torch.get_num_threads()} threads")
    if arguments.json:
        arguments.json.write_text(json.dumps({"builds": builds, "speeds": found}, indent=2) + "\n")


def show(rows: list[dict[str, Any]], title: str) -> None:
    """Rows as a table."""
    columns = [name for name in rows[0] if name != "rounds"]
    table = Table(*columns, title=title)
    for row in rows:
        table.add_row(*(str(row[name]) for name in columns))
    console.print(table)


if __name__ == "__main__":
    main()
