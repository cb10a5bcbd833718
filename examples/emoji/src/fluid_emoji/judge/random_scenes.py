"""Scenes to train and to test the detector with: any kinds and colours side by side, held-out combinations included.

A judge must be as good on a green apple as on a red one, so it is trained on what models never see. Its scenes come
from random numbers of their own: no picture of a data set is among them, be it of the training or the validation split.
"""

from collections.abc import Sequence

import numpy as np

from fluid_core.data.facts import Facts, IncludedObjects
from fluid_core.data.shapes.captions import facts_including
from fluid_emoji.scenes.composition import compose
from fluid_emoji.scenes.scene import EmojiScene
from fluid_emoji.scenes.vocabulary import SceneKind, SceneVocabulary
from fluid_emoji.sprites import SpriteStore

# Part of every seed; the data sets use 0 to 2.
_STREAM = 3
# Numbers of objects in a scene, from one on: more often few, as in captions.
_NUM_OBJECTS = (0.2, 0.4, 0.2, 0.2)
_SAME_KIND_SHARE = 0.4


class RandomScenes:
    """Scene `i` depends on the seed and `i` alone."""

    def __init__(self, vocabulary: SceneVocabulary, sprites: SpriteStore, styles: Sequence[str], seed: int) -> None:
        self._vocabulary = vocabulary
        self._sprites = sprites
        self._styles = styles
        self._seed = seed

    def scene(self, index: int) -> EmojiScene:
        """Scene `index`, from 0 on without end."""
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((self._seed, _STREAM, index))))
        return compose(
            self._facts(rng), self._vocabulary, self._sprites, styles=self._styles, rng=rng, avoid_held_out=False
        )

    def _facts(self, rng: np.random.Generator) -> Facts:
        num_objects = 1 + int(rng.choice(len(_NUM_OBJECTS), p=_NUM_OBJECTS))
        kinds: list[SceneKind] = [self._any(rng)]
        while len(kinds) < num_objects:
            kinds.append(kinds[0] if rng.random() < _SAME_KIND_SHARE else self._any(rng))
        return facts_including(IncludedObjects(class_name=kind.name) for kind in kinds)

    def _any(self, rng: np.random.Generator) -> SceneKind:
        return self._vocabulary.kinds[int(rng.integers(len(self._vocabulary.kinds)))]
