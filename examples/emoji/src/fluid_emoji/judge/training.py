"""Trains the detector of the judge: `python -m fluid_emoji.judge.training --out FOLDER` (a dozen minutes)."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from fluid_core.errors import FluidError
from fluid_emoji.emoji_folder import chosen_folder, read_emoji_folder
from fluid_emoji.judge.network import SIDE, DetectorNetwork
from fluid_emoji.judge.random_scenes import RandomScenes
from fluid_emoji.judge.saved_detector import DetectorDescription, save_detector
from fluid_emoji.judge.targets import detector_loss, targets_of
from fluid_emoji.recoloring import COLORS
from fluid_emoji.scenes.scene import draw
from fluid_emoji.scenes.vocabulary import scene_vocabulary
from fluid_emoji.sprites import SpriteStore

_WEIGHT_DECAY = 0.02
_WARM_UP = 0.05
_MAX_GRADIENT = 5.0


def train_detector(
    description: DetectorDescription, folder: str, told: Callable[[str], None] = lambda _line: None
) -> DetectorNetwork:
    """A detector trained as `description` says on the emoji in `folder` (empty: the cache folder).

    `told` hears of the progress. Raises `DataError` if the emoji were not fetched.
    """
    vocabulary = scene_vocabulary(description.kinds)
    sprites = SpriteStore(read_emoji_folder(chosen_folder(folder)), largest_side=SIDE)
    scenes = RandomScenes(vocabulary, sprites, description.styles, description.seed)
    kinds = {name: number for number, name in enumerate(description.kinds)}
    colors = {name: number for number, name in enumerate(description.colors)}
    with torch.random.fork_rng():
        torch.manual_seed(description.seed)
        network = DetectorNetwork(len(kinds), len(colors))
    # Faster on a CPU.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    # Most cells hold no centre: without this, the first steps do nothing but learn that.
    if network.read.bias is not None:
        torch.nn.init.constant_(network.read.bias.detach()[:1], -4.0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=description.learning_rate, weight_decay=_WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, description.learning_rate, total_steps=description.num_steps, pct_start=_WARM_UP
    )
    random = torch.Generator().manual_seed(description.seed)
    network.train()
    start, running = time.monotonic(), 0.0
    for step in range(description.num_steps):
        first = step * description.batch_size
        batch = [scenes.scene(first + number) for number in range(description.batch_size)]
        pictures = torch.stack([draw(scene, sprites, SIDE) for scene in batch])
        seen = as_models_draw(pictures, random).contiguous(memory_format=torch.channels_last)
        loss = detector_loss(network(seen), targets_of(batch, kinds, colors))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), _MAX_GRADIENT)
        optimizer.step()
        schedule.step()
        running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
        if (step + 1) % 50 == 0 or step + 1 == description.num_steps:
            told(f"step {step + 1} of {description.num_steps}  loss {running:.3f}  {time.monotonic() - start:.0f} s")
    network.eval()
    return network


def as_models_draw(
    pictures: Float[Tensor, "images 3 side side"], random: torch.Generator
) -> Float[Tensor, "images 3 side side"]:
    """Pictures with the faults of drawn ones: some a little blurred, some with noise, some lighter or darker."""
    count = len(pictures)
    blurred = functional.avg_pool2d(functional.pad(pictures, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    blur = torch.rand(count, 1, 1, 1, generator=random) * (torch.rand(count, 1, 1, 1, generator=random) < 0.5)
    strength = 0.15 * torch.rand(count, 1, 1, 1, generator=random)
    strength = strength * (torch.rand(count, 1, 1, 1, generator=random) < 0.5)
    shift = 0.06 * torch.randn(count, 3, 1, 1, generator=random)
    noise = strength * torch.randn(pictures.shape, generator=random)
    return (torch.lerp(pictures, blurred, blur) + noise + shift).clamp(-1, 1)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 1 with a message."""
    parser = argparse.ArgumentParser(prog="python -m fluid_emoji.judge.training", description="Train the detector.")
    parser.add_argument("--out", type=Path, required=True, help="folder for detector.safetensors and detector.json")
    parser.add_argument("--folder", default="", help="folder of the fetched emoji (default: the cache folder)")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--styles", nargs="+", default=["noto", "twemoji"])
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    description = DetectorDescription(
        kinds=tuple(kind.name for kind in scene_vocabulary().kinds),
        colors=COLORS,
        styles=tuple(chosen.styles),
        num_steps=chosen.steps,
        batch_size=chosen.batch_size,
        learning_rate=chosen.learning_rate,
        seed=chosen.seed,
    )
    try:
        network = train_detector(description, chosen.folder, lambda line: print(line, flush=True))
        save_detector(network, description, chosen.out)
    except FluidError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"Wrote {chosen.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
