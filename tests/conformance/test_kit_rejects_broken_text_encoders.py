"""Text encoders with one mistake each, and the test of the suite that finds it."""

import attrs
import pytest
import torch
from torch.nn import functional

from fluid_core.testing import TextEncoderSuite
from fluid_core.testing.tiny import TinyTextEncoder


class WidthAsText(TinyTextEncoder):
    """A width that nobody can build an aligner for."""

    caught_by = "test_is_a_text_encoder"

    def __init__(self):
        super().__init__()
        self.width = "8"


class NumbersForAMask(TinyTextEncoder):
    """A mask of ones and zeros, as tokenizer libraries give it."""

    caught_by = "test_states_and_mask_fit"

    def encode(self, prompts):
        """A mask in int64."""
        features = super().encode(prompts)
        return attrs.evolve(features, mask=features.mask.long())


class AlwaysFullLength(TinyTextEncoder):
    """Pads to `max_length`, and the backbone attends to nothing for most of it."""

    caught_by = "test_states_and_mask_fit"

    def encode(self, prompts):
        """Columns that are padding for everybody."""
        features = super().encode(prompts)
        extra = self.max_length - features.mask.shape[1]
        return attrs.evolve(
            features,
            states=functional.pad(features.states, (0, 0, 0, extra)),
            mask=functional.pad(features.mask, (0, extra)),
        )


class SeesThePadding(TinyTextEncoder):
    """Mixes padding into every state."""

    caught_by = "test_a_prompt_does_not_depend_on_its_neighbours"

    def encode(self, prompts):
        """States relative to the mean over all columns."""
        features = super().encode(prompts)
        return attrs.evolve(features, states=features.states - features.states.mean(dim=1, keepdim=True))


class BagOfLetters(TinyTextEncoder):
    """Does not know where a letter stands."""

    caught_by = "test_words_and_their_order_matter"

    def encode(self, prompts):
        """The states of the sorted prompt."""
        return super().encode(["".join(sorted(prompt)) + "." for prompt in prompts])


class Dropout(TinyTextEncoder):
    """Drops letters, also when it does not train."""

    caught_by = "test_encoding_is_deterministic"

    def encode(self, prompts):
        """Other states every time."""
        features = super().encode(prompts)
        return attrs.evolve(features, states=functional.dropout(features.states, 0.1, training=True))


class AnythingGoes(TinyTextEncoder):
    """Encodes nothing as something."""

    caught_by = "test_empty_prompts_are_refused"

    def encode(self, prompts):
        """States of a full stop, if need be."""
        return super().encode([prompt if prompt.strip() else "." for prompt in prompts])


class SilentTruncation(TinyTextEncoder):
    """Cuts long prompts without a word."""

    caught_by = "test_overlong_prompts_are_never_cut_silently"

    def encode(self, prompts):
        """States of the beginning."""
        return super().encode([prompt[: self.max_length] for prompt in prompts])


class PaddedEmptyPrompt(TinyTextEncoder):
    """Gives nothing but padding for a prompt without words."""

    caught_by = "test_states_of_the_empty_prompt"

    def encode_empty(self):
        """One state that is not real."""
        features = self.encode(["."])
        return attrs.evolve(features, mask=~features.mask)


class FrozenInNameOnly(TinyTextEncoder):
    """Says that it does not train, and hands out gradients."""

    caught_by = "test_gradients_flow_unless_frozen"
    frozen = True


class DetachedStates(TinyTextEncoder):
    """Says that it trains, and can not."""

    caught_by = "test_gradients_flow_unless_frozen"

    def encode(self, prompts):
        """States without a way back."""
        features = super().encode(prompts)
        return attrs.evolve(features, states=features.states.detach())


class FrozenButRandom(TinyTextEncoder):
    """Frozen weights that no file holds."""

    caught_by = "test_comes_back_after_saving"
    frozen = True


class UnsavedTable(TinyTextEncoder):
    """Keeps a table in a plain attribute."""

    caught_by = "test_comes_back_after_saving"

    def __init__(self):
        super().__init__()
        self.extra = torch.randn(8)

    def encode(self, prompts):
        """States with the table added."""
        features = super().encode(prompts)
        return attrs.evolve(features, states=(features.states + self.extra) * features.mask[:, :, None])


BROKEN = [
    encoder
    for encoder in list(globals().values())
    if isinstance(encoder, type) and hasattr(encoder, "caught_by") and encoder.__module__ == __name__
]


def suite_for(broken):
    """A suite that tests `broken`, a function that makes a text encoder."""

    class Suite(TextEncoderSuite):
        def text_encoder(self):
            return broken()

    return Suite


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_text_encoders_are_rejected(broken, assert_rejected):
    """The test named by `caught_by` fails."""
    assert_rejected(suite_for(broken), broken.caught_by)


def test_every_test_of_the_suite_catches_something():
    """No test of the suite is there for show: each has a broken text encoder that fails it."""
    tests = {name for name in dir(TextEncoderSuite) if name.startswith("test_")}
    assert tests == {broken.caught_by for broken in BROKEN}
