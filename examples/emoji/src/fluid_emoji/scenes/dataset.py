"""The `emoji-scenes` data set: scenes composed on the fly, captions that mirror GenEval's tasks, and the truth.

`example` tells the truth about each picture; for those that models draw there is a judge, which has learned to see.
"""

import attrs
import numpy as np
from jaxtyping import Float
from torch import Tensor

from fluid_core.data.captioned_images import CaptionedImage, JudgedPrompt, Verdict
from fluid_core.data.facts import Facts
from fluid_core.data.shapes.vocabulary import COMBINED, TASKS
from fluid_core.errors import ConfigurationError, DataError, InvalidRequestError
from fluid_emoji.emoji_folder import EmojiFolder, chosen_folder, read_emoji_folder
from fluid_emoji.options import EmojiScenesOptions
from fluid_emoji.scenes.captions import caption_of, parse_caption
from fluid_emoji.scenes.composition import compose, sample_facts, task_of
from fluid_emoji.scenes.held_out import mentions_held_out
from fluid_emoji.scenes.scene import EmojiScene, draw
from fluid_emoji.scenes.vocabulary import SceneVocabulary, scene_vocabulary
from fluid_emoji.sprites import SpriteStore

SMALLEST_SIDE = 32
"""Pixels a side below which objects are no longer told apart."""

# Part of every seed, so that the splits and the prompts never share a stream. Existing numbers must not change.
_STREAMS = {"train": 0, "validation": 1}
_PROMPT_STREAM = 2
# In tasks that have held-out combinations, one prompt of this many asks for one.
_HELD_OUT_EVERY = 4
_WITHOUT_HELD_OUT = ("single_object",)
_MOST_TRIES_FOR_A_NEW_PROMPT = 200


@attrs.frozen(kw_only=True)
class ComposedExample:
    """An example before it becomes pixels: the task it belongs to, what it shows and how that is said."""

    task: str
    facts: Facts
    caption: str
    scene: EmojiScene


class EmojiScenesDataset:
    """Scenes of one to four everyday emoji with captions. A `CaptionedImages` whose pictures can be judged.

    Example `i` depends on the seed, the split and `i` alone. A picture shows exactly what its caption says and no
    further object; what the caption leaves open, such as colours and places, is random. Both splits leave out the
    held-out combinations (`held_out.py`); only `evaluation_prompts` asks for them.

    Raises `ConfigurationError` unless `image_size` is square and at least 32 pixels, and for options that leave too few
    objects; `DataError` if the emoji were not fetched or lack one of the objects.
    """

    def __init__(self, options: EmojiScenesOptions, image_size: tuple[int, int], split: str, seed: int) -> None:
        height, width = image_size
        if height != width or height < SMALLEST_SIDE:
            raise ConfigurationError(
                f"The data set 'emoji-scenes' draws square pictures from {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, but "
                f"the tokenizer takes {height} x {width}. Choose a square image_size for the tokenizer."
            )
        if split not in _STREAMS:
            raise ConfigurationError(f"Emoji scenes have the splits 'train' and 'validation', found '{split}'.")
        if seed < 0:
            raise ConfigurationError(f"The seed of the data must not be negative, found {seed}.")
        self.options = options
        self.image_size = image_size
        self.split = split
        self.seed = seed
        self.vocabulary = scene_vocabulary(options.objects)
        self._length = options.num_examples if split == "train" else options.num_validation_examples
        folder = read_emoji_folder(chosen_folder(options.folder))
        _check_complete(folder, self.vocabulary, options.styles)
        self.sprites = SpriteStore(folder, largest_side=image_size[0])

    def __len__(self) -> int:
        """Number of examples in this split."""
        return self._length

    def __getitem__(self, index: int) -> CaptionedImage:
        """Example `index` as a picture in [-1, 1] and its caption.

        Raises `IndexError` outside 0 ... len - 1, and `UnreadableImageError` for a drawing that is damaged.
        """
        composed = self.example(index)
        image = draw(composed.scene, self.sprites, self.image_size[0])
        return CaptionedImage(image=image, caption=composed.caption)

    def example(self, index: int) -> ComposedExample:
        """Example `index` before drawing: caption, facts and scene. Raises as `__getitem__` does."""
        if not 0 <= index < self._length:
            raise IndexError(f"The {self.split} split has the examples 0 to {self._length - 1}, asked for {index}.")
        rng = _generator(self.seed, _STREAMS[self.split], index)
        choice = float(rng.random())
        if choice < self.options.combined_share:
            task = COMBINED
        else:
            rest = (choice - self.options.combined_share) / (1 - self.options.combined_share)
            task = TASKS[min(int(rest * len(TASKS)), len(TASKS) - 1)]
        facts = sample_facts(task, self.vocabulary, rng, max_objects=self.options.max_objects, held_out=False)
        return ComposedExample(
            task=task,
            facts=facts,
            caption=caption_of(facts, self.vocabulary, rng=rng),
            scene=compose(
                facts, self.vocabulary, self.sprites, styles=self.options.styles, rng=rng, avoid_held_out=True
            ),
        )

    def scene(self, index: int) -> EmojiScene:
        """The ground truth of example `index`: objects with boxes, names and colours. Raises as `__getitem__` does."""
        return self.example(index).scene

    def scene_for(self, facts: Facts, *, seed: int) -> EmojiScene:
        """A scene that shows exactly `facts`, held-out combinations included: a true picture to test a judge with.

        Raises `DataError` for facts that no scene can show, and `InvalidRequestError` for a negative seed.
        """
        if seed < 0:
            raise InvalidRequestError(f"Expected a seed of at least 0, found {seed}.")
        return compose(
            facts,
            self.vocabulary,
            self.sprites,
            styles=self.options.styles,
            rng=np.random.Generator(np.random.Philox(seed)),
            avoid_held_out=False,
        )

    @property
    def tasks(self) -> tuple[str, ...]:
        """The six tasks of GenEval, by their names there."""
        return TASKS

    def evaluation_prompts(self, *, num_per_task: int, seed: int) -> tuple[JudgedPrompt, ...]:
        """`num_per_task` prompts for each task, in plain wording; the same for equal arguments.

        Every fourth prompt of all tasks but `single_object` asks for a held-out combination and is marked so. Prompts
        repeat only when a task has hardly more of them. Raises `InvalidRequestError` for a number below 1 or a negative
        seed.
        """
        if num_per_task < 1 or seed < 0:
            raise InvalidRequestError(
                f"Expected num_per_task of at least 1 and a seed of at least 0, found {num_per_task} and {seed}."
            )
        prompts = []
        for number, task in enumerate(TASKS):
            rng = _generator(seed, _PROMPT_STREAM, number)
            taken: set[Facts] = set()
            for index in range(num_per_task):
                held_out = task not in _WITHOUT_HELD_OUT and index % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
                for _ in range(_MOST_TRIES_FOR_A_NEW_PROMPT):
                    facts = sample_facts(
                        task, self.vocabulary, rng, max_objects=self.options.max_objects, held_out=held_out
                    )
                    if facts not in taken:
                        break
                taken.add(facts)
                text = caption_of(facts, self.vocabulary)
                prompts.append(JudgedPrompt(task=task, text=text, facts=facts, held_out=held_out))
        return tuple(prompts)

    def judge(self, image: Float[Tensor, "3 height width"], prompt: JudgedPrompt) -> Verdict:
        """Whether `image`, with values in [-1, 1] and of any size, shows exactly what `prompt` asks for.

        A trained detector looks at it, which knows drawings of the styles `noto` and `twemoji`; `judge/accuracy.json`
        says how often it is right. Raises `InvalidRequestError` if this data set shows other styles.
        """
        # Most uses of the data set need no detector.
        from fluid_emoji.judge.saved_detector import shipped_detector
        from fluid_emoji.judge.verdict import judge_picture

        known = shipped_detector()[1].styles
        if not set(self.options.styles) <= set(known):
            raise InvalidRequestError(
                f"The judge knows drawings of the styles {', '.join(known)}, but this data set has "
                f"{', '.join(self.options.styles)}. Choose among the former with the option 'styles'."
            )
        return judge_picture(image, prompt.facts)

    def prompt_from_text(self, text: str) -> JudgedPrompt:
        """A prompt with facts from a text of one's own, such as "a blue fish above an owl".

        Raises `DataError`, with examples, for a text outside the grammar of `captions.py`.
        """
        facts = parse_caption(text, self.vocabulary)
        return JudgedPrompt(task=task_of(facts), text=text, facts=facts, held_out=mentions_held_out(facts))


def _generator(*numbers: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(numbers)))


def _check_complete(folder: EmojiFolder, vocabulary: SceneVocabulary, styles: tuple[str, ...]) -> None:
    known = {one.code_point: one for one in folder.emoji}
    missing = [
        f"{kind.name} ({kind.code_point}) in {style}"
        for kind in vocabulary.kinds
        for style in styles
        if kind.code_point not in known or style not in known[kind.code_point].styles
    ]
    if missing:
        shown = ", ".join(missing[:6]) + (f" and {len(missing) - 6} more" if len(missing) > 6 else "")
        raise DataError(
            f"{folder.path} lacks drawings of objects in scenes: {shown}. Fetch the emoji again, or leave these out of "
            "the options 'objects' and 'styles'."
        )
