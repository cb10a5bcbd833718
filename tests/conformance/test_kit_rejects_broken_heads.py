"""The kit is worth something: heads with one mistake each, and the test of the suite that finds it."""

from types import SimpleNamespace

import attrs
import pytest
import torch
from torch import nn

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import SamplerBackend, TokenLoss
from fluid_core.testing import HeadSuite
from fluid_core.testing.example_tokens import example_token_space
from fluid_core.testing.head_confidence_tests import HeadConfidenceTests
from fluid_core.testing.tiny import TinyCategoricalHead, TinyGaussianHead
from fluid_core.testing.tiny.heads import TinyCategoricalSampler, TinyGaussianSampler, check_temperature


class NoModule:
    """Keeps the protocol but is no `nn.Module`: it would neither move nor train nor save."""

    caught_by = "test_is_a_head"

    def __init__(self, context):
        self._head = TinyGaussianHead(context)
        self.token_space, self.loss, self.sampler = context.token_space, self._head.loss, self._head.sampler


class MeanLoss(TinyGaussianHead):
    """Reduces over tokens."""

    caught_by = "test_loss_is_one_finite_number_per_token"

    def loss(self, condition, target, *, random):
        """One number."""
        return TokenLoss(total=super().loss(condition, target, random=random).total.mean())


class AttachedParts(TinyGaussianHead):
    """Logs a part with its graph, which keeps every step's activations alive."""

    caught_by = "test_loss_is_one_finite_number_per_token"

    def loss(self, condition, target, *, random):
        """A part that was not detached."""
        loss = super().loss(condition, target, random=random)
        return attrs.evolve(loss, parts={"nll": loss.total})


class BatchStatistics(TinyGaussianHead):
    """Normalises hidden vectors over the batch."""

    caught_by = "test_loss_of_a_token_does_not_depend_on_its_neighbours"

    def means(self, condition):
        """Depends on the other rows."""
        return super().means(condition - condition.mean(dim=0))


class BatchStatisticsInSampling(BatchStatistics):
    """The same mistake, seen at sampling."""

    caught_by = "test_a_sample_does_not_depend_on_its_neighbours"


class GlobalNoiseInLoss(TinyGaussianHead):
    """Adds noise from the global generator."""

    caught_by = "test_loss_follows_the_keys"

    def loss(self, condition, target, *, random):
        """A loss that differs from call to call."""
        return super().loss(condition, target + 0.1 * torch.randn_like(target), random=random)


class UnusedParameter(TinyGaussianHead):
    """Holds a layer that nothing goes through."""

    caught_by = "test_gradients_reach_the_condition_and_every_parameter"

    def __init__(self, context):
        super().__init__(context)
        self.forgotten = nn.Linear(3, 3)


class DetachedCondition(TinyGaussianHead):
    """Cuts the backbone off."""

    caught_by = "test_gradients_reach_the_condition_and_every_parameter"

    def means(self, condition):
        """Means without a way back."""
        return super().means(condition.detach())


class WrongSign(TinyGaussianHead):
    """Returns the log-likelihood, so that training makes it worse without bound."""

    caught_by = "test_training_lowers_the_loss"

    def loss(self, condition, target, *, random):
        """The likelihood of training, negated again when it is measured."""
        loss = super().loss(condition, target, random=random)
        return attrs.evolve(loss, total=-loss.total if torch.is_grad_enabled() else loss.total)


class IgnoresCondition(TinyGaussianHead):
    """The distribution is the same for every hidden vector."""

    caught_by = "test_loss_depends_on_the_condition"

    def means(self, condition):
        """The bias alone."""
        return super().means(condition * 0)


class IgnoresConditionInSampling(IgnoresCondition):
    """The same mistake, seen at sampling."""

    caught_by = "test_samples_depend_on_the_condition"


class AcceptsAnyTarget(TinyGaussianHead):
    """Never looks at the target's shape and values."""

    caught_by = "test_targets_that_do_not_fit_are_refused"

    def loss(self, condition, target, *, random):
        """A number for anything that broadcasts."""
        target = target[:, : self.token_space.channels].float()
        squares = (target - self.means(condition)).square() + 0 * self.log_std
        return TokenLoss(total=squares.sum(dim=1))


class ReducedPrecision(TinyGaussianHead):
    """Lets autocast decide about the type of the loss."""

    caught_by = "test_runs_under_autocast"

    def loss(self, condition, target, *, random):
        """A loss in the type of the layer's output."""
        return TokenLoss(total=(self.mean(condition) - target.to(condition.dtype)).abs().sum(dim=1).to(condition.dtype))


class UnsavedState(TinyGaussianHead):
    """Keeps a random projection in a plain attribute."""

    caught_by = "test_state_survives_saving"

    def __init__(self, context):
        super().__init__(context)
        self.projection = torch.randn(context.width, context.width)

    def means(self, condition):
        """Means after the projection."""
        return super().means(condition.float() @ self.projection)


class BoundToTheOriginal(TinyGaussianHead):
    """A closure over `self`, which a copy shares."""

    caught_by = "test_a_copy_is_independent"

    def __init__(self, context):
        super().__init__(context)
        self.compute = lambda condition: TinyGaussianHead.means(self, condition)

    def means(self, condition):
        """Means of whichever head the closure was made for."""
        return self.compute(condition)


class DoublePrecisionSamples(TinyGaussianHead):
    """Samples of a type that the token space does not have."""

    caught_by = "test_samples_are_tokens"

    def sampler(self, settings):
        """A sampler in float64."""
        draw = super().sampler(settings)
        return lambda condition, request: draw(condition, request).double()


class DropsTheAxisOfOneToken(TinyGaussianHead):
    """Squeezes where there may be a single row."""

    caught_by = "test_samples_are_tokens"

    def sampler(self, settings):
        """A sampler that loses the axis of a single row."""
        draw = super().sampler(settings)
        return lambda condition, request: draw(condition, request).squeeze(0)


class GlobalNoiseInSampling(TinyCategoricalHead):
    """Samples with `torch.multinomial` and no generator."""

    caught_by = "test_samples_follow_the_keys"

    def sampler(self, settings):
        """A sampler that the keys have no influence on."""
        return lambda condition, request: (
            torch.multinomial(self.logits(condition).softmax(dim=1), 1).squeeze(1)
            if len(condition)
            else torch.zeros(0, dtype=torch.int64)
        )


class SameNoiseForAll(TinyGaussianHead):
    """One draw serves all rows, that of the first."""

    caught_by = "test_a_sample_does_not_depend_on_its_neighbours"

    def sampler(self, settings):
        """A sampler whose rows share their noise."""
        return lambda condition, request: (
            self.means(condition).detach() + request.random.normal((self.token_space.channels,))[:1]
        )


class SamplerThatRemembers(TinyGaussianHead):
    """Every call moves the samples a little further."""

    caught_by = "test_a_sampler_can_be_called_again"

    def sampler(self, settings):
        """A sampler with a counter."""
        calls, draw = [], super().sampler(settings)

        def remember(condition, request):
            calls.append(1)
            return draw(condition, request) + 0.1 * len(calls)

        return remember


class _OtherGuidance(TinyGaussianSampler):
    def __call__(self, condition, request):
        if request.guidance is not None:
            condition = self.mix(condition, request.guidance)
            request = attrs.evolve(request, guidance=None)
        return super().__call__(condition, request)


class GuidanceOffByOne(TinyGaussianHead):
    """The other convention, in which scale 0 means no guidance."""

    caught_by = "test_guidance_scale_one_is_no_guidance"

    def sampler(self, settings):
        """A sampler of the other convention."""
        sampler = type("Sampler", (_OtherGuidance,), {})(self)
        sampler.mix = lambda c, g: (1 + g.scale[:, None]) * c - g.scale[:, None] * g.negative
        return sampler


class MeanGuidance(TinyGaussianHead):
    """One scale for all tokens."""

    caught_by = "test_guidance_acts_on_each_token"

    def sampler(self, settings):
        """A sampler that averages the scale."""
        sampler = type("Sampler", (_OtherGuidance,), {})(self)
        sampler.mix = lambda c, g: g.negative + g.scale.mean() * (c - g.negative)
        return sampler


class NoGuidance(MeanGuidance):
    """Guidance is ignored without a word."""

    def sampler(self, settings):
        """A sampler that can not be guided."""
        sampler = type("Sampler", (_OtherGuidance,), {})(self)
        sampler.mix = lambda c, _: c
        return sampler


class GuidanceFromTheWrongEnd(TinyGaussianHead):
    """Right at scale 1, but below it nothing is mixed in."""

    caught_by = "test_guidance_scale_zero_is_the_negative_prediction"

    def sampler(self, settings):
        """A sampler that clamps the scale."""
        sampler = type("Sampler", (_OtherGuidance,), {})(self)
        sampler.mix = lambda c, g: g.negative + g.scale.clamp(min=1)[:, None] * (c - g.negative)
        return sampler


class IgnoresTemperature(TinyCategoricalHead):
    """Samples at temperature 1 whatever is asked."""

    caught_by = "test_temperature"

    def sampler(self, settings):
        """A sampler with one temperature, which at least refuses nonsense."""
        draw = super().sampler(settings)

        def at_one(condition, request):
            check_temperature(request.temperature)
            return draw(condition, attrs.evolve(request, temperature=1.0))

        return at_one


class NegativeTemperature(TinyGaussianHead):
    """Takes the size of a negative temperature."""

    caught_by = "test_temperature"

    def sampler(self, settings):
        """A sampler for every temperature."""
        draw = super().sampler(settings)
        return lambda condition, request: draw(condition, attrs.evolve(request, temperature=abs(request.temperature)))


class AnyNumberOfSteps(TinyCategoricalHead):
    """Does not look at the number of steps."""

    caught_by = "test_impossible_numbers_of_steps_are_refused"

    def sampler(self, settings):
        """A sampler, always."""
        return TinyCategoricalSampler(self)


class RefusesItsOwnOptions(TinyGaussianHead):
    """Names an option that its sampler then does not take."""

    caught_by = "test_sampling_options_are_accepted"
    options = SimpleNamespace(limit=None)
    sampling_options = frozenset({"limit"})

    def sampler(self, settings):
        """A sampler without options."""
        if settings.options:
            raise InvalidRequestError("Expected no options.")
        return super().sampler(settings)


class OptionThatMovesSamples(RefusesItsOwnOptions):
    """Takes the value the option has already for a wish to do something else."""

    def sampler(self, settings):
        """A sampler that adds something if the option is given."""
        draw = TinyGaussianSampler(self)
        return lambda condition, request: draw(condition, request) + len(settings.options)


class OptionsWithoutValues(RefusesItsOwnOptions):
    """Misspells the name, so that no option of the head has it."""

    sampling_options = frozenset({"limits"})


class ReportsNoBackend(TinyGaussianHead):
    """Repeats what was asked for instead of saying what runs."""

    caught_by = "test_the_backend_is_reported"

    def sampler(self, settings):
        """A sampler that reports the request."""
        sampler = super().sampler(settings)
        sampler.backend = settings.backend
        return sampler


class AlwaysFused(ReportsNoBackend):
    """Runs its fused sampler even where the reference is asked for."""

    def sampler(self, settings):
        """A sampler that is always the same."""
        sampler = super().sampler(settings)
        sampler.backend = SamplerBackend.FUSED
        return sampler


class _FastSampler(TinyGaussianSampler):
    backend = SamplerBackend.FUSED


class FusedWithOtherNoise(TinyGaussianHead):
    """The fused sampler takes its numbers from another place of the stream."""

    caught_by = "test_a_fused_sampler_draws_what_the_reference_draws"

    def sampler(self, settings):
        """A fused sampler unless the reference is asked for."""
        return TinyGaussianSampler(self) if settings.backend is SamplerBackend.REFERENCE else self.draw_fused()

    def draw_fused(self):
        """A sampler that skips a number."""
        sampler = _FastSampler(self)

        class Skipping:
            backend = SamplerBackend.FUSED

            def __call__(self, condition, request):
                request.random.uniform()
                return sampler(condition, request)

        return Skipping()


class FusedWithoutGuidance(FusedWithOtherNoise):
    """The fused sampler is right as long as nothing is guided."""

    def draw_fused(self):
        """A sampler that ignores guidance."""
        sampler = _FastSampler(self)

        class Unguided:
            backend = SamplerBackend.FUSED

            def __call__(self, condition, request):
                return sampler(condition, attrs.evolve(request, guidance=None))

        return Unguided()


class FusedForgetsTheLastId(TinyCategoricalHead):
    """The fused sampler never draws the last id of the vocabulary."""

    caught_by = "test_a_fused_sampler_draws_what_the_reference_draws"

    def sampler(self, settings):
        """A fused sampler for a vocabulary that is one short."""
        sampler = super().sampler(settings)
        if settings.backend is SamplerBackend.REFERENCE:
            return sampler
        last = self.token_space.vocabulary_size - 1

        class Short:
            backend = SamplerBackend.FUSED

            def __call__(self, condition, request):
                return sampler(condition, request).clamp(max=last - 1)

        return Short()


BROKEN = [
    head
    for head in list(globals().values())
    if isinstance(head, type) and hasattr(head, "caught_by") and head.__module__ == __name__
]


def suite_for(broken):
    """A suite that tests `broken`, a function from `HeadContext` to a head."""

    class Suite(HeadSuite):
        def head(self, context):
            return broken(context)

        def token_space(self):
            discrete = issubclass(broken, TinyCategoricalHead)
            return example_token_space("discrete" if discrete else "continuous")

    return Suite


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_heads_are_rejected(broken, assert_rejected):
    """The test named by `caught_by` fails."""
    assert_rejected(suite_for(broken), broken.caught_by)


def test_every_test_of_the_suite_catches_something():
    """No test of the suite is there for show: each has a broken head that fails it.

    Those of heads that tell their confidence are in a file of their own.
    """
    tests = {name for name in set(dir(HeadSuite)) - set(dir(HeadConfidenceTests)) if name.startswith("test_")}
    assert tests == {broken.caught_by for broken in BROKEN}
