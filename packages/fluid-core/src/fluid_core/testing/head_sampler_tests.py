"""Tests of a head's sampler."""

import math

import pytest
import torch

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import SamplerSettings, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_core.testing.example_tokens import assert_same_tokens
from fluid_core.testing.global_random_state import without_global_random_numbers
from fluid_core.testing.head_case import HeadCase


class HeadSamplerTests(HeadCase):
    """The part of `HeadSuite` that concerns generation."""

    def test_samples_are_tokens(self) -> None:
        """For any number of hidden vectors, none included, the sampler gives as many valid tokens without gradients,
        from a head fresh out of its constructor as from a trained one.

        If this fails: compare shape and type with `token_space.token_shape` and `token_space.dtype`; sample under
        `torch.no_grad()`; values that are not finite often come from dividing by a small noise level.
        """
        for head in (self._head(), self._trained()):
            space = head.token_space
            for count in (7, 1, 0):
                drawn = self._draw(head, self._batch(count))
                assert tuple(drawn.shape) == (count, *space.token_shape)
                assert drawn.dtype == space.dtype
                assert not drawn.requires_grad
                space.validate(drawn)

    def test_samples_follow_the_keys(self) -> None:
        """The same keys give the same tokens, other keys others; global generators have no say and stay untouched.

        If this fails: draw every number from `request.random`, never with `torch.randn` or `torch.multinomial`.
        """
        head, batch = self._trained(), self._batch(48)
        first, second = without_global_random_numbers(lambda: self._draw(head, batch))
        assert_same_tokens(second, first, reason="the samples changed from call to call")
        other = type(batch)(condition=batch.condition, target=batch.target, keys=batch.keys + 1)
        assert not torch.equal(self._draw(head, other), first), "other keys gave the same samples"

    def test_a_sampler_can_be_called_again(self) -> None:
        """One sampler serves a whole generation: a call does not depend on the calls before it, at any progress.

        If this fails: keep tables and packed weights in the sampler, but nothing that a call changes.
        """
        head, batch = self._trained(), self._batch(8)
        sampler = head.sampler(SamplerSettings(num_steps=self.num_sampling_steps))

        def draw(rows: int, progress: float) -> torch.Tensor:
            part = batch.rows(torch.arange(rows))
            request = SamplingRequest(random=KeyedRandom(part.keys), progress=progress)
            drawn: torch.Tensor = sampler(part.condition, request)
            return drawn

        first = draw(8, 0.0)
        for rows, progress in ((3, 0.5), (1, 0.99)):
            head.token_space.validate(draw(rows, progress))
        assert_same_tokens(draw(8, 0.0), first, reason="the same call gave other samples later on")

    def test_a_sample_does_not_depend_on_its_neighbours(self) -> None:
        """A token drawn alone, or in a batch of another order, is the one drawn in the batch.

        If this fails: look for statistics over the batch, and for random numbers that are not taken row by row.
        """
        head, batch = self._trained(), self._batch(9)
        together = self._draw(head, batch)
        shuffled = torch.tensor([3, 8, 0, 5, 1, 7, 2, 6, 4])
        again = self._draw(head, batch.rows(shuffled))
        assert_same_tokens(again, together[shuffled], tolerance=self.tolerance, reason="in another order")
        alone = self._draw(head, batch.rows(torch.tensor([5])))
        assert_same_tokens(alone, together[5:6], tolerance=self.tolerance, reason="alone")

    def test_samples_depend_on_the_condition(self) -> None:
        """With the same random numbers, a trained head draws other tokens for other hidden vectors.

        If this fails: the sampler ignores `condition`.
        """
        head, batch = self._trained(), self._batch(48)
        moved = type(batch)(condition=batch.condition.roll(1, 0), target=batch.target, keys=batch.keys)
        assert not torch.equal(self._draw(head, moved), self._draw(head, batch))

    def test_guidance_scale_one_is_no_guidance(self) -> None:
        """At scale 1 the samples are those drawn without guidance.

        If this fails: mix as negative + scale * (conditional - negative), not as (1 + scale) * conditional - scale *
        negative, and draw the same random numbers with and without guidance.
        """
        head, batch = self._trained(), self._batch(24)
        guided = self._draw(head, batch, guidance=self._guidance(batch, torch.ones(24)))
        assert_same_tokens(guided, self._draw(head, batch), tolerance=self.tolerance)

    def test_guidance_acts_on_each_token(self) -> None:
        """The scale is one number per token: tokens with scale 1 stay as they are, others move.

        If this fails: use `guidance.scale[:, None]`, not its mean or first element, and do use
        `guidance.negative`. A head that can not be guided should raise `InvalidRequestError` and mark this test.
        """
        head, batch = self._trained(), self._batch(96)
        scale = torch.where(torch.arange(96) % 2 == 0, 1.0, 4.0)
        plain = self._draw(head, batch)
        guided = self._draw(head, batch, guidance=self._guidance(batch, scale))
        assert_same_tokens(guided[::2], plain[::2], tolerance=self.tolerance, reason="tokens with scale 1 moved")
        assert not torch.equal(guided[1::2], plain[1::2]), "guidance with scale 4 changed nothing"
        head.token_space.validate(guided)

    def test_guidance_scale_zero_is_the_negative_prediction(self) -> None:
        """At scale 0 hidden vectors and text are out of the picture: nearly the samples drawn for `negative` itself.

        If this fails: negative and conditional prediction are swapped, or only part of the distribution is mixed. A
        head may keep minor parts of the conditional distribution, such as its variance: samples are compared by the
        mean of what they were drawn for.
        """
        head, batch = self._trained(), self._batch(96)
        guided = self._draw(head, batch, guidance=self._guidance(batch, torch.zeros(96)))
        negative = type(batch)(condition=batch.condition.roll(1, 0), target=batch.target, keys=batch.keys)
        expected, plain = self._draw(head, negative), self._draw(head, batch)
        to_negative = (guided != expected).float() if guided.dtype == torch.int64 else (guided - expected).abs()
        to_plain = (guided != plain).float() if guided.dtype == torch.int64 else (guided - plain).abs()
        assert float(to_negative.mean()) < float(to_plain.mean())

    def test_temperature(self) -> None:
        """Temperature 0 works, other temperatures draw other tokens; negative ones and NaN are refused.

        If this fails: multiply the noise by the temperature (or divide the logits, with a case of its own for 0), and
        raise `InvalidRequestError` unless it is 0 or more.
        """
        head, batch = self._trained(), self._batch(48)
        cold, warm = self._draw(head, batch, temperature=0.0), self._draw(head, batch, temperature=1.0)
        head.token_space.validate(cold)
        head.token_space.validate(self._draw(head, batch, temperature=0.7))
        assert not torch.equal(cold, warm), "temperature changed nothing"
        for wrong in (-0.5, math.nan):
            with pytest.raises(InvalidRequestError):
                self._draw(head, batch, temperature=wrong)

    def test_impossible_numbers_of_steps_are_refused(self) -> None:
        """`sampler` refuses to take no step, or fewer, per token; three steps work or are refused as well.

        If this fails: check `settings.num_steps` in `sampler` and raise `InvalidRequestError`. A head that draws at
        once refuses everything but None and 1.
        """
        head, batch = self._head(), self._batch(3)
        for wrong in (0, -1):
            with pytest.raises(InvalidRequestError):
                head.sampler(SamplerSettings(num_steps=wrong))
        try:
            sampler = head.sampler(SamplerSettings(num_steps=3))
        except InvalidRequestError:
            return
        head.token_space.validate(sampler(batch.condition, SamplingRequest(random=KeyedRandom(batch.keys))))
