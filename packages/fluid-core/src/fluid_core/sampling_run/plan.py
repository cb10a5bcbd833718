"""Which picture has which prompt and seed, and which pictures are drawn together: decided before anything is drawn.

The plan depends on the arguments alone, never on how many processes there are or on what exists already. So whoever
draws a picture, and whenever, draws it from the same numbers and in the same company, and it is the same to the byte.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import torch

from fluid_core.errors import InvalidRequestError
from fluid_core.pipeline.image_seeds import image_seeds
from fluid_core.sampling_run.prompts_file import LARGEST_SEED, Prompt


def numbered(index: int, _prompt: int, _repeat: int) -> str:
    """The name of a picture by its number in the run alone."""
    return f"{index:05d}"


@attrs.frozen(kw_only=True)
class PlannedImage:
    """One picture to draw."""

    index: int
    """Its number in the run, from 0."""

    name: str
    """Name of its files in the folder of the run, without the ending; may lie in a folder of its own."""

    prompt: str
    negative_prompt: str | None
    seed: int
    metadata: Mapping[str, Any]
    source: str | None
    """File and line of the prompt, if it came from a file."""


def plan_images(
    prompts: Sequence[Prompt],
    *,
    images_per_prompt: int,
    seed: int,
    negative_prompt: str | None,
    name_of: Callable[[int, int, int], str] = numbered,
) -> list[PlannedImage]:
    """The pictures of a run: all of the first prompt, then all of the second.

    Each has a seed that depends on `seed` and its number, the one that a single call of a pipeline would give it,
    unless the prompt brings its own. `negative_prompt` holds for prompts without one. `name_of` names the files of a
    picture by its number in the run, the number of its prompt, and its number among that prompt's pictures. Raises
    `InvalidRequestError` for less than one picture per prompt, and for a seed out of range.
    """
    if images_per_prompt < 1:
        raise InvalidRequestError(f"Expected 1 or more for --images-per-prompt, found {images_per_prompt}.")
    seeds = image_seeds(len(prompts) * images_per_prompt, seed, None)
    images: list[PlannedImage] = []
    for number, prompt in enumerate(prompts):
        if prompt.seed is not None and prompt.seed > LARGEST_SEED - (images_per_prompt - 1):
            place = prompt.source or "prompt"
            raise InvalidRequestError(f"{place}: the seed {prompt.seed} leaves no room to count up from.")
        for repeat in range(images_per_prompt):
            index = len(images)
            images.append(
                PlannedImage(
                    index=index,
                    name=name_of(index, number, repeat),
                    prompt=prompt.text,
                    negative_prompt=negative_prompt if prompt.negative is None else prompt.negative,
                    seed=seeds[index] if prompt.seed is None else prompt.seed + repeat,
                    metadata=prompt.metadata,
                    source=prompt.source,
                )
            )
    return images


def fresh_seed() -> int:
    """A seed that nobody chose."""
    return torch.Generator().seed() & (2**63 - 1)


def plan_batches(images: Sequence[PlannedImage], batch_size: int) -> list[list[PlannedImage]]:
    """Pictures that are drawn together: those with a negative prompt apart from those without.

    Raises `InvalidRequestError` for batches of less than one.
    """
    if batch_size < 1:
        raise InvalidRequestError(f"Expected 1 or more for --batch-size, found {batch_size}.")
    batches = []
    for has_negative in (False, True):
        alike = [image for image in images if (image.negative_prompt is not None) == has_negative]
        batches += [alike[first : first + batch_size] for first in range(0, len(alike), batch_size)]
    return batches
