"""Tests of heads that can tell how sure they are of the tokens they draw."""

import pytest
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from fluid_core.components import HeadComponent
from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import SamplerBackend, SamplerSettings, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_core.protocols import ConfidentHead
from fluid_core.testing.example_tokens import assert_same_tokens
from fluid_core.testing.head_case import HeadCase, TokenBatch


class HeadConfidenceTests(HeadCase):
    """The part of `HeadSuite` that concerns the ability `ConfidentHead`; skipped for heads without it."""

    def test_confidence_comes_with_the_same_samples(self) -> None:
        """`with_confidence` draws what `sampler` draws from the same numbers, and one finite number for each token; the
        declaration of an installed head says that it can.

        If this fails: draw as `__call__` does, and return `tokens, confidence` of shapes `tokens *token` and `tokens`.
        Set `tells_confidence=True` in the declaration if and only if the head has `confident_sampler`.
        """
        head = self._confident_head()
        for backend in (SamplerBackend.AUTO, SamplerBackend.REFERENCE):
            settings = SamplerSettings(num_steps=self.num_sampling_steps, backend=backend)
            plain = self._trained().sampler(settings)
            for count in (24, 1, 0):
                batch = self._batch(count)
                guidance = self._guidance(batch, torch.full((count,), 3.0))
                for request in ({}, {"temperature": 0.0}, {"guidance": guidance}):
                    tokens, confidence = self._draw_confidently(head, settings, batch, **request)
                    asked = SamplingRequest(random=KeyedRandom(batch.keys), **request)
                    expected = plain(batch.condition, asked)
                    assert_same_tokens(tokens, expected, tolerance=self.tolerance, reason=f"{backend}, {count} tokens")
                    assert tuple(confidence.shape) == (count,)
                    assert confidence.is_floating_point()
                    assert not confidence.requires_grad
                    assert bool(confidence.isfinite().all()), "a confidence is not finite"

    def test_likely_tokens_have_more_confidence(self) -> None:
        """Tokens drawn at temperature 0, the likeliest ones, have more confidence on average than those drawn at 1.

        If this fails: return log-probabilities, not losses, and those of the tokens drawn. Temperature is no part of
        them: at 0 every token would be certain.
        """
        head, batch = self._confident_head(), self._batch(96)
        settings = SamplerSettings(num_steps=self.num_sampling_steps)
        _, cold = self._draw_confidently(head, settings, batch, temperature=0.0)
        _, warm = self._draw_confidently(head, settings, batch, temperature=1.0)
        assert float(cold.mean()) > float(warm.mean())
        assert float(cold.std()) > 0.0 or float(warm.std()) > 0.0, "every token has the same confidence"

    def test_confidence_does_not_depend_on_the_neighbours(self) -> None:
        """A token drawn alone has the confidence it has in a batch.

        If this fails: normalise over the values a token may have, never over the tokens of a call.
        """
        head, batch = self._confident_head(), self._batch(9)
        settings = SamplerSettings(num_steps=self.num_sampling_steps)
        _, together = self._draw_confidently(head, settings, batch)
        for row in (0, 5):
            _, alone = self._draw_confidently(head, settings, batch.rows(torch.tensor([row])))
            torch.testing.assert_close(alone, together[row : row + 1], atol=self.tolerance, rtol=self.tolerance)

    def _confident_head(self) -> ConfidentHead:
        head = self._trained()
        can_tell = isinstance(head, ConfidentHead)
        if self.component:
            declared = self.installed.component
            assert isinstance(declared, HeadComponent)
            assert declared.tells_confidence is can_tell, "tells_confidence of the declaration is not true"
        if not can_tell:
            pytest.skip("this head can not tell how sure it is")
        try:
            head.confident_sampler(SamplerSettings(num_steps=self.num_sampling_steps))
        except InvalidRequestError as refused:
            raise AssertionError(f"refused to tell its confidence with default settings: {refused}") from refused
        confident: ConfidentHead = head
        return confident

    def _draw_confidently(
        self, head: ConfidentHead, settings: SamplerSettings, batch: TokenBatch, **request: object
    ) -> tuple[Shaped[Tensor, "tokens *token"], Float[Tensor, "tokens"]]:
        asked = SamplingRequest(random=KeyedRandom(batch.keys), **request)  # type: ignore[arg-type]
        return head.confident_sampler(settings).with_confidence(batch.condition, asked)
