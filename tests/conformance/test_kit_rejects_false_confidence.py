"""Heads that are wrong about how sure they are, and the test of the suite that finds it."""

import attrs
import pytest

from fluid_core.components import HeadComponent
from fluid_core.discovery import InstalledComponent
from fluid_core.testing import HeadSuite
from fluid_core.testing.example_tokens import example_token_space
from fluid_core.testing.head_confidence_tests import HeadConfidenceTests
from fluid_core.testing.tiny import TinyCategoricalHead


@attrs.frozen(kw_only=True)
class NoOptions:
    """Nothing to choose."""


class _Wrapped:
    """A confident sampler that changes what another gives."""

    def __init__(self, sampler, change):
        self._sampler, self._change = sampler, change

    def __call__(self, condition, request):
        return self._sampler(condition, request)

    def with_confidence(self, condition, request):
        return self._change(*self._sampler.with_confidence(condition, request))


class ConfidentOfOtherTokens(TinyCategoricalHead):
    """Draws with other numbers where it is asked for its confidence."""

    caught_by = "test_confidence_comes_with_the_same_samples"

    def confident_sampler(self, settings):
        """A sampler whose tokens are those of the next row."""
        return _Wrapped(self.sampler(settings), lambda tokens, confidence: (tokens.roll(1), confidence.roll(1)))


class EndlessConfidence(TinyCategoricalHead):
    """Divides by the temperature that is left at the end."""

    caught_by = "test_confidence_comes_with_the_same_samples"

    def confident_sampler(self, settings):
        """A sampler whose numbers are not finite."""
        return _Wrapped(self.sampler(settings), lambda tokens, confidence: (tokens, confidence / 0.0))


class SurestOfTheUnlikely(TinyCategoricalHead):
    """Returns the cross-entropy: the larger, the less sure."""

    caught_by = "test_likely_tokens_have_more_confidence"

    def confident_sampler(self, settings):
        """A sampler with the wrong sign."""
        return _Wrapped(self.sampler(settings), lambda tokens, confidence: (tokens, -confidence))


class ConfidenceAmongNeighbours(TinyCategoricalHead):
    """Compares the tokens of a call with each other."""

    caught_by = "test_confidence_does_not_depend_on_the_neighbours"

    def confident_sampler(self, settings):
        """A sampler that normalises over the batch."""
        return _Wrapped(self.sampler(settings), lambda tokens, confidence: (tokens, confidence.log_softmax(dim=0)))


BROKEN = [ConfidentOfOtherTokens, EndlessConfidence, SurestOfTheUnlikely, ConfidenceAmongNeighbours]


@pytest.mark.parametrize("broken", BROKEN)
def test_heads_with_false_confidence_are_rejected(broken, assert_rejected):
    """The test named by `caught_by` fails."""

    class Suite(HeadSuite):
        def head(self, context):
            return broken(context)

        def token_space(self):
            return example_token_space("discrete")

    assert_rejected(Suite, broken.caught_by)


def test_every_test_of_confidence_catches_something():
    """No test is there for show: each has a broken head that fails it."""
    tests = {name for name in dir(HeadConfidenceTests) if name.startswith("test_")}
    assert tests == {broken.caught_by for broken in BROKEN}


def test_a_false_declaration_of_an_installed_head_is_rejected(tmp_path):
    """A head that can tell its confidence, declared as one that can not, would be refused for no reason."""
    declaration = HeadComponent(
        name="x",
        summary="X",
        options=NoOptions,
        build=lambda options, context: TinyCategoricalHead(context),
        predicts="discrete",
    )

    class Suite(HeadSuite):
        component = "x"
        installed = InstalledComponent(component=declaration, distribution="d", version="1")

    run = Suite()
    run.folder = tmp_path
    with pytest.raises(AssertionError, match="tells_confidence of the declaration is not true"):
        run.test_confidence_comes_with_the_same_samples()
