"""Orders with one mistake each, and the test of the suite that finds it."""

import attrs
import pytest
import torch

from fluid_core.components import OrderComponent
from fluid_core.discovery import InstalledComponent
from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import TrainedPermutations, TrainingView
from fluid_core.planned_steps import PlannedSteps
from fluid_core.testing import OrderSuite
from fluid_core.testing.tiny import TinyRandomOrder, TinyRasterOrder, TinySurestFirstOrder
from fluid_core.testing.tiny.orders import SurestFirst, random_order


class NoGeneration:
    """Half a protocol."""

    caught_by = "test_is_an_order"
    attention, trained_permutations = TinyRandomOrder.attention, TinyRandomOrder.trained_permutations
    training_view = TinyRandomOrder.training_view


class WordInsteadOfEnum(TinyRandomOrder):
    """A word that nobody compares with."""

    caught_by = "test_is_an_order"
    attention = "both-ways"


class EverythingKnown(TinyRandomOrder):
    """Sometimes shows all tokens and predicts none."""

    caught_by = "test_training_views_are_permutations_with_a_cut"

    def training_view(self, batch_size, grid, *, generator, device):
        """A view whose cut may lie at the end."""
        view = super().training_view(batch_size, grid, generator=generator, device=device)
        return attrs.evolve(view, num_known=view.num_known + 1)


class RepeatedPositions(TinyRandomOrder):
    """Draws positions with replacement."""

    caught_by = "test_training_views_are_permutations_with_a_cut"

    def training_view(self, batch_size, grid, *, generator, device):
        """No permutation."""
        order = torch.randint(grid.length, (batch_size, grid.length), generator=generator)
        return TrainingView(order=order, num_known=torch.zeros(batch_size, dtype=torch.int64))


class CausalWithKnownTokens(TinyRasterOrder):
    """Causal, but hides the beginning from the loss."""

    caught_by = "test_training_views_are_permutations_with_a_cut"

    def training_view(self, batch_size, grid, *, generator, device):
        """A view with known tokens."""
        view = super().training_view(batch_size, grid, generator=generator, device=device)
        return attrs.evolve(view, num_known=view.num_known + min(1, grid.length - 1))


class FalseDeclaration(TinyRandomOrder):
    """Says FIXED and trains on any permutation."""

    caught_by = "test_permutations_are_as_declared"
    trained_permutations = TrainedPermutations.FIXED


class GlobalRandomViews(TinyRandomOrder):
    """Forgets to pass the generator on."""

    caught_by = "test_training_views_follow_the_generator"

    def training_view(self, batch_size, grid, *, generator, device):
        """A view from the global generator."""
        order = torch.rand(batch_size, grid.length).argsort(dim=1)
        return TrainingView(order=order, num_known=torch.zeros(batch_size, dtype=torch.int64))


class ForgetsTheLast(TinyRasterOrder):
    """Stops one token early."""

    caught_by = "test_generation_fills_every_unknown_position_once"

    def generation(self, unknown, grid, *, num_steps, random):
        """A course without the last position."""
        length = max(1, grid.length - 1)
        order = torch.arange(length).repeat(len(unknown), 1)
        return PlannedSteps(order, (1,) * length)


class IgnoresWhatIsKnown(TinyRandomOrder):
    """Draws the whole image anew, editing or not."""

    caught_by = "test_generation_fills_every_unknown_position_once"

    def generation(self, unknown, grid, *, num_steps, random):
        """A course over all positions."""
        return super().generation(torch.ones_like(unknown), grid, num_steps=num_steps, random=random)


class _Repeating(PlannedSteps):
    def propose(self):
        positions = super().propose()
        return None if positions is None else torch.cat([positions, positions[:, :1]], dim=1)


class ProposesTwice(TinyRandomOrder):
    """Pads its steps by asking for a position twice."""

    caught_by = "test_generation_fills_every_unknown_position_once"

    def generation(self, unknown, grid, *, num_steps, random):
        """A course with repeated positions."""
        return _Repeating(random_order(unknown, grid, random), (int(unknown[0].sum()),))


class _WithAnEmptyStep(PlannedSteps):
    paused = False

    def propose(self):
        positions = super().propose()
        return positions if positions is None or self.paused else positions[:, :0]

    def accept(self, confidence):
        if self.paused:
            return super().accept(confidence)
        self.paused = True
        return torch.ones(3, 0, dtype=torch.bool)


class EmptyStep(TinyRandomOrder):
    """Rounds the size of the first step down to nothing."""

    caught_by = "test_generation_fills_every_unknown_position_once"

    def generation(self, unknown, grid, *, num_steps, random):
        """A course that begins with nothing."""
        return _WithAnEmptyStep(random_order(unknown, grid, random), (int(unknown[0].sum()),))


class ChangesTheMask(TinySurestFirstOrder):
    """Keeps its books in the mask of the caller."""

    caught_by = "test_generation_fills_every_unknown_position_once"

    def generation(self, unknown, grid, *, num_steps, random):
        """A course that writes into `unknown`."""
        return SurestFirst(unknown, (1,) * int(unknown[0].sum()))


class _AboveAThreshold(SurestFirst):
    def accept(self, confidence):
        keep = super().accept(confidence) | (confidence > 0.5)
        self._unknown[keep.nonzero()[:, 0], self._unknown.nonzero()[:, 1].max()] = False
        return keep


class UnequalCounts(TinySurestFirstOrder):
    """Keeps whatever is sure enough: more in one image than in another."""

    caught_by = "test_generation_fills_every_unknown_position_once"

    def generation(self, unknown, grid, *, num_steps, random):
        """A course of unequal steps."""
        return _AboveAThreshold(unknown.clone(), (1,) * int(unknown[0].sum()))


class _Boasting:
    def __init__(self, steps):
        self.num_steps = steps.num_steps + 3
        self.propose, self.accept = steps.propose, steps.accept


class BoastsOfSteps(TinyRandomOrder):
    """Announces more steps than it takes."""

    caught_by = "test_num_steps_is_true"

    def generation(self, unknown, grid, *, num_steps, random):
        """A course with a false count."""
        return _Boasting(super().generation(unknown, grid, num_steps=num_steps, random=random))


class RoundsTheRequest(TinyRandomOrder):
    """Takes the next power of two."""

    caught_by = "test_asked_number_of_steps_is_taken"

    def generation(self, unknown, grid, *, num_steps, random):
        """A course of another length."""
        if num_steps is not None and num_steps > 1:
            num_steps = min(2 ** (num_steps - 1).bit_length(), int(unknown[0].sum()))
        return super().generation(unknown, grid, num_steps=num_steps, random=random)


class ClampsTheRequest(TinyRandomOrder):
    """Takes as many steps as there are, whatever is asked."""

    caught_by = "test_impossible_numbers_of_steps_are_refused"

    def generation(self, unknown, grid, *, num_steps, random):
        """A course for impossible requests."""
        if num_steps is not None:
            num_steps = max(1, min(num_steps, int(unknown[0].sum())))
        return super().generation(unknown, grid, num_steps=num_steps, random=random)


class GlobalRandomCourse(TinyRandomOrder):
    """Shuffles with `torch.randperm`."""

    caught_by = "test_generation_follows_the_keys"

    def generation(self, unknown, grid, *, num_steps, random):
        """A course from the global generator."""
        order = torch.randperm(grid.length).repeat(len(unknown), 1)
        return PlannedSteps(order, (grid.length,))


class OnePermutationPerBatch(TinyRandomOrder):
    """Gives all images the permutation of the first."""

    caught_by = "test_generation_of_an_image_does_not_depend_on_its_neighbours"

    def generation(self, unknown, grid, *, num_steps, random):
        """A course that depends on the first key."""
        ranks = random.uniform((grid.length,))[:1].repeat(len(unknown), 1).masked_fill(~unknown, 2.0)
        count = int(unknown[0].sum())
        return PlannedSteps(ranks.argsort(dim=1)[:, :count], (1,) * count)


class _NeedsConfidence(SurestFirst):
    def accept(self, confidence):
        return super().accept(confidence * 1.0)


class NeedsConfidence(TinySurestFirstOrder):
    """Multiplies None."""

    caught_by = "test_the_need_for_confidence_is_declared"
    error = TypeError

    def generation(self, unknown, grid, *, num_steps, random):
        """A course that breaks without confidence."""
        return _NeedsConfidence(unknown.clone(), (1,) * int(unknown[0].sum()))


class _RefusesNone(SurestFirst):
    def accept(self, confidence):
        if confidence is None:
            raise InvalidRequestError("Use a head that can tell how sure it is.")
        return super().accept(confidence)


class KeepsItsNeedToItself(TinySurestFirstOrder):
    """Says that it can do without confidence, and refuses in the middle of a generation."""

    caught_by = "test_the_need_for_confidence_is_declared"

    def generation(self, unknown, grid, *, num_steps, random):
        """A course that ends with an error."""
        return _RefusesNone(unknown.clone(), (1,) * int(unknown[0].sum()))


class NeedsNothing(TinySurestFirstOrder):
    """Is refused with most heads, and would do well with them."""

    caught_by = "test_the_need_for_confidence_is_declared"
    needs_confidence = True


class DoesNotListen(TinyRandomOrder):
    """Asks for confidence and goes its own way."""

    caught_by = "test_confidence_decides"
    needs_confidence = False


class _AsManyAsAreSure(SurestFirst):
    def accept(self, confidence):
        many = bool((confidence[:, 0] > confidence[:, -1]).all())
        self._step_sizes = tuple(reversed(self._step_sizes)) if many and self._step == 0 else self._step_sizes
        return super().accept(confidence)


class KeepsMoreWhenItIsSure(TinySurestFirstOrder):
    """The number of tokens a step keeps depends on the confidence."""

    caught_by = "test_confidence_decides"

    def generation(self, unknown, grid, *, num_steps, random):
        """A course with uneven steps."""
        count = int(unknown[0].sum())
        return _AsManyAsAreSure(unknown.clone(), (1, count - 1) if count > 1 else (1,))


class _AboveTheMean(SurestFirst):
    def accept(self, confidence):
        positions = self.propose()
        keep = confidence > confidence.mean(dim=1, keepdim=True)
        self._unknown[keep.nonzero()[:, 0], positions[keep]] = False
        self._step += 1
        return keep


class KeepsWhatIsAboveTheMean(TinySurestFirstOrder):
    """Keeps nothing where all tokens are equally sure."""

    caught_by = "test_any_confidence_will_do"

    def generation(self, unknown, grid, *, num_steps, random):
        """A course that may keep nothing."""
        return _AboveTheMean(unknown.clone(), (1,) * int(unknown[0].sum()))


class _AnnouncesOneMore(SurestFirst):
    @property
    def num_kept(self):
        return super().num_kept + 1

    def accept(self, confidence):
        self._step_sizes = tuple(size - 1 for size in self._step_sizes)
        keep = super().accept(confidence)
        self._step_sizes = tuple(size + 1 for size in self._step_sizes)
        return keep


class AnnouncesOneMore(TinySurestFirstOrder):
    """Tells guidance schedules of a token that it does not keep."""

    caught_by = "test_generation_fills_every_unknown_position_once"

    def generation(self, unknown, grid, *, num_steps, random):
        """A course with a false announcement."""
        return _AnnouncesOneMore(unknown.clone(), (1,) * int(unknown[0].sum()))


class DrawsFromTheBottom(TinyRasterOrder):
    """Trained from the top, generates from the bottom."""

    caught_by = "test_fixed_orders_generate_in_the_trained_order"

    def generation(self, unknown, grid, *, num_steps, random):
        """A course in another order than that of training."""
        return PlannedSteps(torch.arange(grid.length).flip(0).repeat(len(unknown), 1), (1,) * grid.length)


BROKEN = [
    order
    for order in list(globals().values())
    if isinstance(order, type) and hasattr(order, "caught_by") and order.__module__ == __name__
]


@pytest.mark.parametrize("broken", BROKEN)
def test_broken_orders_are_rejected(broken, assert_rejected):
    """The test named by `caught_by` fails."""

    class Suite(OrderSuite):
        def order(self):
            return broken()

    if hasattr(broken, "error"):
        with pytest.raises(broken.error):
            assert_rejected(Suite, broken.caught_by)
    else:
        assert_rejected(Suite, broken.caught_by)


def test_every_test_of_the_suite_catches_something():
    """No test of the suite is there for show: each has a broken order that fails it."""
    tests = {name for name in dir(OrderSuite) if name.startswith("test_")}
    assert tests == {broken.caught_by for broken in BROKEN}


@attrs.frozen(kw_only=True)
class NoOptions:
    """Nothing to choose."""


def test_a_false_declaration_of_an_installed_order_is_rejected(tmp_path):
    """An order that needs confidence, declared as one that does not, would pass every check before it is built."""
    declaration = OrderComponent(name="x", summary="X", options=NoOptions, build=lambda options: NeedsNothing())

    class Suite(OrderSuite):
        component = "x"
        installed = InstalledComponent(component=declaration, distribution="d", version="1")

    run = Suite()
    run.folder = tmp_path
    with pytest.raises(AssertionError, match="needs_confidence of the declaration is not true"):
        run.test_the_need_for_confidence_is_declared()
