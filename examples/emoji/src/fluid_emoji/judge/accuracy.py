"""How often the judge is right: `python -m fluid_emoji.judge.accuracy --out accuracy.json`.

True scenes show exactly what a prompt asks for. False ones differ from it in one fact, the one its task is about, and
are drawn as carefully. All are new compositions, but of the drawings that the detector was trained on: the figures say
nothing about other drawings.
"""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from fluid_core.atomic_files import write_json
from fluid_core.catalog import installed_components
from fluid_core.data.captioned_images import JudgedPrompt
from fluid_core.data.facts import Facts, IncludedObjects
from fluid_core.data.shapes.captions import facts_including, related
from fluid_core.data.shapes.vocabulary import RELATIONS
from fluid_core.errors import FluidError
from fluid_core.evaluation.reconstruction import reconstruct
from fluid_core.evaluation.tokenizer_source import named_tokenizers
from fluid_core.protocols import Tokenizer
from fluid_emoji.judge.network import DetectorNetwork
from fluid_emoji.judge.saved_detector import DetectorDescription, load_detector, shipped_detector
from fluid_emoji.judge.training import as_models_draw
from fluid_emoji.judge.verdict import judge_picture
from fluid_emoji.options import EmojiScenesOptions
from fluid_emoji.recoloring import COLORS
from fluid_emoji.scenes.captions import MOST_OBJECTS
from fluid_emoji.scenes.dataset import EmojiScenesDataset
from fluid_emoji.scenes.scene import draw
from fluid_emoji.scenes.vocabulary import SceneVocabulary

# Of the scenes; training draws others.
_SEED = 20_000

Condition = Callable[[Tensor], Tensor]
"""What is done to pictures (N, 3, side, side; in [-1, 1]) before they are judged."""


def standard_conditions() -> dict[str, Condition]:
    """Pictures as they are drawn, with the faults the detector was trained with, and with worse ones than those."""
    return {
        "as drawn": lambda pictures: pictures,
        "faults as in training": lambda pictures: as_models_draw(pictures, torch.Generator().manual_seed(_SEED)),
        "from 32 pixels a side": lambda pictures: _reduced(pictures, 32),
        "from 16 pixels a side": lambda pictures: _reduced(pictures, 16),
        "strong noise": _noisy,
    }


def tokenizer_conditions(paths: Sequence[Path]) -> dict[str, Condition]:
    """Pictures as tokenizers give them back, which is about as well as models can draw with them.

    Raises as `named_tokenizers` does.
    """

    def condition(tokenizer: Tokenizer) -> Condition:
        def given_back(pictures: Tensor) -> Tensor:
            batches = [
                reconstruct(tokenizer, pictures[first : first + 64], seed=_SEED, first=first)[2]
                for first in range(0, len(pictures), 64)
            ]
            return torch.cat(batches)

        return given_back

    if not paths:
        return {}
    named = named_tokenizers(paths, installed_components())
    return {f"through the tokenizer {one.label}": condition(one.tokenizer) for one in named}


def _reduced(pictures: Tensor, side: int) -> Tensor:
    return functional.interpolate(pictures, size=(side, side), mode="bilinear", antialias=True)


def _noisy(pictures: Tensor) -> Tensor:
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(_SEED))
    return (pictures + 0.5 * noise).clamp(-1, 1)


def changed(facts: Facts, vocabulary: SceneVocabulary, rng: np.random.Generator) -> Facts:
    """Facts that differ in one: the colour, the number, the relation, or else the kind of an object."""
    include = list(facts.include)
    if any(objects.position is not None for objects in include):
        anchor, subject = include
        assert subject.position is not None
        other = _another(RELATIONS, subject.position[0], rng)
        return related(attrs.evolve(subject, position=None), other, anchor)
    place = int(rng.integers(len(include)))
    one = include[place]
    colors = [objects.color for objects in include]
    if len(include) == 2 and None not in colors and rng.random() < 0.5:
        # Both are there, and each has the colour of the other.
        return facts_including(
            attrs.evolve(objects, color=color) for objects, color in zip(include, reversed(colors), strict=True)
        )
    if one.color is not None:
        return _replaced(include, place, attrs.evolve(one, color=_another(COLORS, one.color, rng)))
    if one.count > 1:
        counts = [count for count in (one.count - 1, one.count + 1) if count <= MOST_OBJECTS]
        return _replaced(include, place, attrs.evolve(one, count=counts[int(rng.integers(len(counts)))]))
    taken = {objects.class_name for objects in include}
    names = [kind.name for kind in vocabulary.kinds if kind.name not in taken]
    return _replaced(include, place, attrs.evolve(one, class_name=names[int(rng.integers(len(names)))]))


def _replaced(include: list[IncludedObjects], place: int, other: IncludedObjects) -> Facts:
    return facts_including([*include[:place], other, *include[place + 1 :]])


def _another(words: tuple[str, ...], word: str, rng: np.random.Generator) -> str:
    rest = [one for one in words if one != word]
    return rest[int(rng.integers(len(rest)))]


def measure_accuracy(
    data: EmojiScenesDataset,
    detector: tuple[DetectorNetwork, DetectorDescription],
    *,
    num_per_task: int,
    seed: int = _SEED,
    conditions: Mapping[str, Condition] | None = None,
) -> dict[str, Any]:
    """Shares of true scenes accepted and of false ones rejected, by condition and task, as plain data."""
    prompts = data.evaluation_prompts(num_per_task=num_per_task, seed=seed)
    rng = np.random.Generator(np.random.Philox(seed))
    true = [data.scene_for(prompt.facts, seed=seed + number) for number, prompt in enumerate(prompts)]
    false = [
        data.scene_for(changed(prompt.facts, data.vocabulary, rng), seed=2 * seed + number)
        for number, prompt in enumerate(prompts)
    ]
    side = data.image_size[0]
    pictures = {
        kind: torch.stack([draw(scene, data.sprites, side) for scene in scenes])
        for kind, scenes in (("true", true), ("false", false))
    }
    figures: dict[str, Any] = {}
    for condition, degrade in (standard_conditions() if conditions is None else conditions).items():
        accepted = {
            kind: [
                judge_picture(picture, prompt.facts, detector).correct
                for picture, prompt in zip(degrade(drawn), prompts, strict=True)
            ]
            for kind, drawn in pictures.items()
        }
        figures[condition] = _by_task(prompts, accepted["true"], accepted["false"])
    return figures


def _by_task(prompts: tuple[JudgedPrompt, ...], true: list[bool], false: list[bool]) -> dict[str, Any]:
    groups: dict[str, list[int]] = {"all": list(range(len(prompts)))}
    for number, prompt in enumerate(prompts):
        groups.setdefault(prompt.task, []).append(number)
        if prompt.held_out:
            groups.setdefault("held-out combinations", []).append(number)
    return {
        name: {
            "true_scenes_accepted": sum(true[number] for number in numbers) / len(numbers),
            "false_scenes_rejected": sum(not false[number] for number in numbers) / len(numbers),
            "num_prompts": len(numbers),
        }
        for name, numbers in groups.items()
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 1 with a message."""
    parser = argparse.ArgumentParser(prog="python -m fluid_emoji.judge.accuracy", description="Test the judge.")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--detector", type=Path, help="folder of a detector (default: the one of this package)")
    parser.add_argument("--folder", default="", help="folder of the fetched emoji (default: the cache folder)")
    parser.add_argument(
        "--tokenizer", type=Path, nargs="*", default=[], help="also judge what these tokenizers (TOML files) give back"
    )
    parser.add_argument("--num-per-task", type=int, default=300)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--styles", nargs="+", default=["noto", "twemoji"])
    parser.add_argument("--seed", type=int, default=_SEED)
    chosen = parser.parse_args(arguments)
    try:
        options = EmojiScenesOptions(folder=chosen.folder, styles=tuple(chosen.styles))
        data = EmojiScenesDataset(options, (chosen.image_size, chosen.image_size), "validation", 0)
        detector = shipped_detector() if chosen.detector is None else load_detector(chosen.detector)
        conditions = standard_conditions() | tokenizer_conditions(chosen.tokenizer)
        figures = measure_accuracy(
            data, detector, num_per_task=chosen.num_per_task, seed=chosen.seed, conditions=conditions
        )
        settings = {
            "num_per_task": chosen.num_per_task,
            "image_size": chosen.image_size,
            "styles": chosen.styles,
            "seed": chosen.seed,
        }
        write_json(chosen.out, {"format_version": 1, "settings": settings, "figures": figures})
    except FluidError as error:
        print(error, file=sys.stderr)
        return 1
    for condition, tasks in figures.items():
        print(condition)
        for task, row in tasks.items():
            print(
                f"  {task:<22} {100 * row['true_scenes_accepted']:6.1f} % of true scenes accepted  "
                f"{100 * row['false_scenes_rejected']:6.1f} % of false ones rejected  ({row['num_prompts']})"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
