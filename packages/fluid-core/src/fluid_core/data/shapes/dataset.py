"""The `shapes` data set: scenes drawn on the fly with captions that mirror GenEval's six tasks, and their judge."""

import attrs
import numpy as np
from jaxtyping import Float
from torch import Tensor

from fluid_core.data.captioned_images import CaptionedImage, JudgedPrompt, Verdict
from fluid_core.data.facts import Facts
from fluid_core.data.options import ShapesOptions
from fluid_core.data.shapes.captions import caption_of, parse_caption
from fluid_core.data.shapes.composition import combined_facts, compose, facts_for_task, task_of
from fluid_core.data.shapes.drawing import SMALLEST_SIDE, draw
from fluid_core.data.shapes.held_out import mentions_held_out
from fluid_core.data.shapes.judge import judge_picture
from fluid_core.data.shapes.scene import Scene
from fluid_core.data.shapes.vocabulary import COMBINED, TASKS
from fluid_core.errors import ConfigurationError, DataError, InvalidRequestError
from fluid_core.exchange import DatasetContext

# Part of every seed, so that the splits and the prompts never share a stream. Existing numbers must not change.
_STREAMS = {"train": 0, "validation": 1}
_PROMPT_STREAM = 2
# In tasks that have held-out combinations, one prompt of this many asks for one.
_HELD_OUT_EVERY = 4


@attrs.frozen(kw_only=True)
class DrawnExample:
    """An example before it becomes pixels: the task it belongs to, what it shows and how that is said."""

    task: str
    facts: Facts
    caption: str
    scene: Scene


class ShapesDataset:
    """Scenes of one to four coloured shapes with captions. A `CaptionedImages` whose pictures can be judged.

    Example `i` depends on the seed, the split and `i` alone. A picture shows exactly what its caption says and no
    further object; what the caption leaves open, such as colours and places, is random. Both splits leave out the
    held-out combinations (`held_out.py`); only `evaluation_prompts` asks for them.

    Raises `ConfigurationError` unless `image_size` is square and at least 16 pixels, the split is `train` or
    `validation`, and the seed is not negative.
    """

    def __init__(self, options: ShapesOptions, image_size: tuple[int, int], split: str, seed: int) -> None:
        height, width = image_size
        if height != width or height < SMALLEST_SIDE:
            raise ConfigurationError(
                f"The data set 'shapes' draws square pictures from {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, but the "
                f"tokenizer takes {height} x {width}. Choose a square image_size for the tokenizer."
            )
        if split not in _STREAMS:
            raise ConfigurationError(f"Shapes have the splits 'train' and 'validation', found '{split}'.")
        if seed < 0:
            raise ConfigurationError(f"The seed of the data must not be negative, found {seed}.")
        self.options = options
        self.image_size = image_size
        self.split = split
        self.seed = seed
        self._length = options.num_examples if split == "train" else options.num_validation_examples
        self._seen = {task: _without_held_out(facts_for_task(task, options.max_objects)) for task in TASKS}
        self._seen_combined = [_without_held_out(kind) for kind in combined_facts(options.max_objects)]

    def __len__(self) -> int:
        """Number of examples in this split."""
        return self._length

    def __getitem__(self, index: int) -> CaptionedImage:
        """Example `index` as a picture in [-1, 1] and its caption. Raises `IndexError` outside 0 ... len - 1."""
        drawn = self.example(index)
        return CaptionedImage(image=draw(drawn.scene, self.image_size[0]), caption=drawn.caption)

    def example(self, index: int) -> DrawnExample:
        """Example `index` before drawing, with its facts. Raises `IndexError` outside 0 ... len - 1."""
        if not 0 <= index < self._length:
            raise IndexError(f"The {self.split} split has the examples 0 to {self._length - 1}, asked for {index}.")
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((self.seed, _STREAMS[self.split], index))))
        choice, which = rng.random(2).tolist()
        if choice < self.options.combined_share:
            kind = int(choice / self.options.combined_share * len(self._seen_combined))
            task, candidates = COMBINED, self._seen_combined[kind]
        else:
            rest = (choice - self.options.combined_share) / (1 - self.options.combined_share)
            task = TASKS[int(rest * len(TASKS))]
            candidates = self._seen[task]
        facts = candidates[int(which * len(candidates))]
        return DrawnExample(
            task=task,
            facts=facts,
            caption=caption_of(facts, rng=rng),
            scene=compose(facts, rng=rng, avoid_held_out=True, layout=self.options.layout),
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The six tasks of GenEval, by their names there."""
        return TASKS

    def evaluation_prompts(self, *, num_per_task: int, seed: int) -> tuple[JudgedPrompt, ...]:
        """`num_per_task` prompts for each task, in plain wording; the same for equal arguments.

        Every fourth prompt of the tasks `colors`, `position` and `color_attr` asks for a held-out combination and is
        marked so. Prompts repeat only when a task has no more of them. Raises `InvalidRequestError` for a number
        below 1 or a negative seed.
        """
        if num_per_task < 1 or seed < 0:
            raise InvalidRequestError(
                f"Expected num_per_task of at least 1 and a seed of at least 0, found {num_per_task} and {seed}."
            )
        prompts = []
        for number, task in enumerate(TASKS):
            rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, _PROMPT_STREAM, number))))
            every = facts_for_task(task, self.options.max_objects)
            held_out = [facts for facts in every if mentions_held_out(facts)]
            seen = [facts for facts in every if not mentions_held_out(facts)]
            rng.shuffle(held_out)
            rng.shuffle(seen)
            for index in range(num_per_task):
                turn, last = divmod(index, _HELD_OUT_EVERY)
                if not held_out:
                    facts = seen[index % len(seen)]
                elif last == _HELD_OUT_EVERY - 1:
                    facts = held_out[turn % len(held_out)]
                else:
                    facts = seen[(index - turn) % len(seen)]
                prompts.append(_prompt(task, caption_of(facts), facts))
        return tuple(prompts)

    def judge(self, image: Float[Tensor, "3 height width"], prompt: JudgedPrompt) -> Verdict:
        """Whether `image`, with values in [-1, 1] and of any size, shows exactly what `prompt` asks for."""
        return judge_picture(image, prompt.facts)


def prompt_from_text(text: str) -> JudgedPrompt:
    """A prompt that can be judged from a text of one's own, such as "a red circle above a blue square".

    Raises `DataError`, with examples, for a text outside the grammar of `captions.py`.
    """
    facts = parse_caption(text)
    return _prompt(task_of(facts), text, facts)


def build_shapes(options: ShapesOptions, context: DatasetContext) -> ShapesDataset:
    """Build the data set for a run. Raises `ConfigurationError` if it can not draw pictures of that size."""
    return ShapesDataset(options, context.image_size, context.split, context.seed)


def _prompt(task: str, text: str, facts: Facts) -> JudgedPrompt:
    return JudgedPrompt(task=task, text=text, facts=facts, held_out=mentions_held_out(facts))


def _without_held_out(candidates: tuple[Facts, ...]) -> tuple[Facts, ...]:
    kept = tuple(facts for facts in candidates if not mentions_held_out(facts))
    if not kept:
        raise DataError("Every combination of a task is held out: there is nothing to train on.")
    return kept
