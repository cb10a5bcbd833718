"""The suite for text encoders."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from fluid_core.errors import PromptError
from fluid_core.model import check_component
from fluid_core.protocols import EncodesEmptyPrompt, TextEncoder
from fluid_core.testing.conformance_suite import ConformanceSuite
from fluid_core.testing.example_tokens import assert_same_tokens
from fluid_core.testing.global_random_state import seeded, without_global_random_numbers
from fluid_core.testing.saved_state import saved_and_read

_PROMPTS = ("a red circle", "two blue squares above a green ring", "a cat")


class TextEncoderSuite(ConformanceSuite):
    """Tests that every text encoder must pass.

    For an encoder that is installed, its name is enough; `options` where its declaration has no `example`:

        class TestWords(TextEncoderSuite):
            component = "words"

    For an encoder built by hand, say how:

        class TestMyEncoder(TextEncoderSuite):
            def text_encoder(self):
                return MyEncoder(width=32)

    `self.folder` is an empty folder for weights that the encoder reads from disk.
    """

    kind = "text-encoder"
    supplier = "text_encoder"

    tolerance: float = 1e-4
    """How far states may differ when only the batch around them changes."""

    def text_encoder(self) -> TextEncoder:
        """The text encoder to test. By default the installed one called `component`."""
        built: TextEncoder = self.build()
        return built

    def test_is_a_text_encoder(self) -> None:
        """It is a module with everything the protocol asks for.

        If this fails: inherit from `torch.nn.Module` beside implementing `fluid_core.protocols.TextEncoder`; `frozen`
        is True or False.
        """
        encoder = self._encoder()
        check_component(encoder, TextEncoder, needs_module=True)
        assert isinstance(encoder.width, int)
        assert encoder.width > 0
        assert isinstance(encoder.max_length, int)
        assert encoder.max_length > 0
        assert isinstance(encoder.frozen, bool)

    def test_states_and_mask_fit(self) -> None:
        """Every prompt becomes finite states of the encoder's width, at most `max_length`, and a mask of the real ones.

        If this fails: `states` is batch x text x width; `mask` is bool, True for tokens and False for padding.
        """
        encoder = self._encoder()
        for prompts in (_PROMPTS, _PROMPTS[:1], ("ein grüner Kreis über 三 ☂",)):
            features = encoder.encode(prompts)
            batch, length, width = features.states.shape
            assert (batch, width) == (len(prompts), encoder.width)
            assert 0 < length <= encoder.max_length
            assert features.states.is_floating_point()
            assert bool(torch.isfinite(features.states).all())
            assert features.mask.dtype == torch.bool
            assert tuple(features.mask.shape) == (batch, length)
            assert bool(features.mask.any(dim=1).all()), "a prompt has no state at all"
            assert bool(features.mask.any(dim=0).all()), "a column is padding for every prompt"

    def test_a_prompt_does_not_depend_on_its_neighbours(self) -> None:
        """A prompt alone has the states it has beside longer and shorter ones.

        If this fails: hand the mask to the attention layers, and count positions from the first real token.
        """
        encoder = self._encoder()
        together = self._real_states(encoder, _PROMPTS)
        for prompt, states in zip(_PROMPTS, together, strict=True):
            alone = self._real_states(encoder, (prompt,))[0]
            assert_same_tokens(alone, states, tolerance=self.tolerance, reason=f"'{prompt}' alone")

    def test_words_and_their_order_matter(self) -> None:
        """Prompts of other words, or of the same words in another order, have other states.

        If this fails: the words are ignored, or there is no position embedding.
        """
        prompts = ("a ball on a box", "a box on a ball", "a ring on a box")
        states = self._real_states(self._encoder(), prompts)
        for one, other in ((0, 1), (0, 2)):
            same = states[one].shape == states[other].shape and torch.allclose(states[one], states[other], atol=1e-6)
            assert not same, f"'{prompts[one]}' and '{prompts[other]}' have the same states"

    def test_encoding_is_deterministic(self) -> None:
        """The same prompts have the same states every time, whatever the global generators do; a frozen encoder also
        when the model around it is in training mode.

        If this fails: set dropout to 0; let a frozen encoder override `train` to stay in evaluation mode.
        """
        encoder = self._encoder()
        encoder.train(encoder.frozen)
        first, second = without_global_random_numbers(lambda: encoder.encode(_PROMPTS))
        assert_same_tokens(second.states, first.states, reason="the states changed from call to call")
        assert torch.equal(second.mask, first.mask)

    def test_empty_prompts_are_refused(self) -> None:
        """An empty prompt, white space, or an empty prompt among others raises `PromptError`.

        If this fails: check `prompt.strip()` for every prompt before encoding.
        """
        encoder = self._encoder()
        for prompts in (("",), (" \n",), ("a cat", "")):
            with pytest.raises(PromptError):
                encoder.encode(prompts)

    def test_overlong_prompts_are_never_cut_silently(self) -> None:
        """A prompt of more than `max_length` tokens raises `PromptError`, or is cut with a warning in the log.

        If this fails: compare the number of tokens with `max_length`; where an encoder cuts, let it say with
        `logging.getLogger(__name__).warning` what was lost.
        """
        encoder = self._encoder()
        overlong = "cat dog " * encoder.max_length
        for prompts in ((overlong,), ("a cat", overlong)):
            with _logged_warnings() as warnings:
                try:
                    features = encoder.encode(prompts)
                except PromptError:
                    continue
            assert features.states.shape[1] <= encoder.max_length
            assert warnings, "the prompt was cut silently"

    def test_states_of_the_empty_prompt(self) -> None:
        """An encoder with the method `encode_empty` gives one row of finite states that are real, the same every time.

        If this fails: return the states of the marks around an empty text, or leave the method out.
        """
        encoder = self._encoder()
        if not _encodes_empty_prompt(encoder):
            pytest.skip("this encoder has no states for an empty prompt")
        features = encoder.encode_empty()
        assert tuple(features.states.shape) == (1, features.mask.shape[1], encoder.width)
        assert features.mask.dtype == torch.bool
        assert bool(features.mask.all())
        assert bool(torch.isfinite(features.states).all())
        assert features.states.requires_grad is (not encoder.frozen)
        assert_same_tokens(encoder.encode_empty().states, features.states)

    def test_gradients_flow_unless_frozen(self) -> None:
        """States of a frozen encoder carry no gradient; those of another reach at least one parameter of it.

        If this fails: encode a frozen model under `torch.no_grad()`; an encoder that trains must not.
        """
        encoder = self._encoder()
        states = encoder.encode(_PROMPTS).states
        assert states.requires_grad is not encoder.frozen
        if not encoder.frozen:
            states.square().sum().backward()
            gradients = [parameter.grad for parameter in encoder.parameters()]
            assert any(gradient is not None and bool(gradient.any()) for gradient in gradients)

    def test_comes_back_after_saving(self) -> None:
        """A frozen encoder that is built again has the same states; another has, once it was given the saved state.

        If this fails: a saved model only names a frozen encoder: all its weights must come from its options. All that
        trains must be parameters or buffers.
        """
        encoder, other = self._encoder(), self._encoder(seed=1)
        if not encoder.frozen:
            other.load_state_dict(saved_and_read(encoder), strict=True)
        expected, found = encoder.encode(_PROMPTS), other.encode(_PROMPTS)
        assert_same_tokens(found.states, expected.states, tolerance=1e-6)
        assert torch.equal(found.mask, expected.mask)

    def _encoder(self, *, seed: int = 0) -> Any:
        with seeded(seed):
            encoder: Any = self.text_encoder()
        return encoder.eval()

    def _real_states(self, encoder: TextEncoder, prompts: tuple[str, ...]) -> list[Tensor]:
        """The states of each prompt, without padding."""
        features = encoder.encode(prompts)
        return [states[mask].detach() for states, mask in zip(features.states, features.mask, strict=True)]


def _encodes_empty_prompt(encoder: object) -> bool:
    return isinstance(encoder, EncodesEmptyPrompt)


@contextmanager
def _logged_warnings() -> Iterator[list[logging.LogRecord]]:
    """The warnings, and worse, that any logger is given meanwhile."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = records.append  # type: ignore[assignment, method-assign]
    logging.getLogger().addHandler(handler)
    try:
        yield records
    finally:
        logging.getLogger().removeHandler(handler)
