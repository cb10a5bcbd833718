"""Tests of the abilities of a head's sampler: options that change with a generation, and a fused implementation."""

import pytest
import torch

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import SamplerBackend, SamplerSettings, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_core.protocols import AdjustableSampling
from fluid_core.sampler_choice import build_sampler
from fluid_core.testing.example_tokens import assert_same_tokens
from fluid_core.testing.head_case import HeadCase, TokenBatch


class HeadSettingsTests(HeadCase):
    """The part of `HeadSuite` that concerns what `SamplerSettings` ask for."""

    def test_sampling_options_are_accepted(self) -> None:
        """`sampler` takes every option named in `sampling_options`: with the value the head was built with, it draws
        what it draws without. Skipped for heads without the ability `AdjustableSampling`.

        If this fails: name options that `sampler` reads from `settings.options`, and no others. A head without an
        attribute `options` that holds the values needs `sampling_option_values` in your subclass.
        """
        head, batch = self._trained(), self._batch(12)
        if not isinstance(head, AdjustableSampling):
            pytest.skip("this head has no options that change when sampling")
        names = head.sampling_options
        assert isinstance(names, frozenset)
        values = self.sampling_option_values(self._trained())
        plain = self._draw(head, batch)
        for name in sorted(names):
            assert name in values, f"no value is known for the sampling option '{name}'"
            settings = SamplerSettings(num_steps=self.num_sampling_steps, options={name: values[name]})
            drawn = self._draw_with(head, settings, batch)
            assert_same_tokens(drawn, plain, tolerance=self.tolerance, reason=f"with {name} as it was built")

    def test_the_backend_is_reported(self) -> None:
        """A sampler says `reference` or `fused`, or nothing; who asks for the reference gets it, and who asks for a
        fused sampler gets that or an `InvalidRequestError`.

        If this fails: look at `settings.backend` in `sampler`, and set `backend` of the sampler to what it runs.
        """
        head = self._trained()
        for backend in (SamplerBackend.AUTO, SamplerBackend.REFERENCE):
            chosen = build_sampler(head, SamplerSettings(num_steps=self.num_sampling_steps, backend=backend))
            assert chosen.backend in (SamplerBackend.REFERENCE, SamplerBackend.FUSED)
        try:
            build_sampler(head, SamplerSettings(num_steps=self.num_sampling_steps, backend=SamplerBackend.FUSED))
        except InvalidRequestError:
            return

    def test_a_fused_sampler_draws_what_the_reference_draws(self) -> None:
        """From the same random numbers: the same ids, and vectors within `tolerance`; with and without guidance, at
        several temperatures, for any number of tokens. Skipped for heads without a fused sampler.

        If this fails: take the numbers from `request.random` with the same calls in the same order, and compare
        intermediate results in float32.
        """
        head = self._trained()
        settings = {
            backend: SamplerSettings(num_steps=self.num_sampling_steps, backend=backend)
            for backend in (SamplerBackend.REFERENCE, SamplerBackend.FUSED)
        }
        try:
            build_sampler(head, settings[SamplerBackend.FUSED])
        except InvalidRequestError:
            pytest.skip("this head has no fused sampler")
        for count in (24, 1, 0):
            batch = self._batch(count)
            guidance = self._guidance(batch, torch.linspace(0.0, 4.0, count))
            for request in (
                {},
                {"guidance": guidance, "progress": 0.5},
                {"guidance": guidance, "temperature": 0.6, "progress": 0.9},
                {"temperature": 0.0},
            ):
                expected, found = (self._draw_with(head, one, batch, **request) for one in settings.values())
                what = ", ".join(request) or "nothing else"
                assert_same_tokens(
                    found, expected, tolerance=self.tolerance, reason=f"fused and reference, {count} tokens, {what}"
                )

    def _draw_with(self, head: object, settings: SamplerSettings, batch: TokenBatch, **request: object) -> torch.Tensor:
        """Samples for the conditions of `batch` with the sampler that core builds for `settings`."""
        sampler = build_sampler(head, settings).sampler  # type: ignore[arg-type]
        asked = SamplingRequest(random=KeyedRandom(batch.keys), **request)  # type: ignore[arg-type]
        return sampler(batch.condition, asked)
