"""The suite for orders."""

from collections.abc import Iterator

import attrs
import pytest
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from fluid_core.components import OrderComponent
from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import AttentionPattern, TrainedPermutations, TrainingView
from fluid_core.keyed_random import KeyedRandom
from fluid_core.model import check_component
from fluid_core.protocols import AnnouncesKept, OrderPolicy, UsesConfidence
from fluid_core.testing.conformance_suite import ConformanceSuite
from fluid_core.testing.example_confidence import (
    Confidence,
    equally_sure,
    far_apart,
    sure_at_random,
    sure_of_early_positions,
    sure_of_late_positions,
    tell_nothing,
)
from fluid_core.testing.global_random_state import without_global_random_numbers
from fluid_core.token_space import Grid

_BATCH = 3
_CPU = torch.device("cpu")


@attrs.frozen(kw_only=True, eq=False)
class Course:
    """What a generation did: the positions kept at each step, and whether it ever kept less than it proposed."""

    kept: list[Int[Tensor, "batch kept"]]
    num_steps: int
    """What `GenerationSteps.num_steps` said."""

    adaptive: bool


class OrderSuite(ConformanceSuite):
    """Tests that every order must pass.

    For an order that is installed, its name is enough:

        class TestSpiral(OrderSuite):
            component = "spiral"

    For an order built by hand, say how:

        class TestMyOrder(OrderSuite):
            def order(self):
                return MyOrder()

    `grids` are the arrangements of tokens it is tried on. Orders with the ability `UsesConfidence` are told
    confidences, random ones unless a test says otherwise; others are told none, as in a generation.
    """

    kind = "order"
    supplier = "order"

    grids: tuple[tuple[int, int], ...] = ((4, 4), (2, 3), (5, 1), (1, 1))
    """Height and width of the grids, in tokens."""

    def order(self) -> OrderPolicy:
        """The order to test. By default the installed one called `component`."""
        built: OrderPolicy = self.build()
        return built

    def test_is_an_order(self) -> None:
        """It has everything the protocol asks for, with one of core's words for attention and permutations.

        If this fails: set `attention = AttentionPattern...` and `trained_permutations = TrainedPermutations...`.
        """
        order = self.order()
        check_component(order, OrderPolicy, needs_module=False)
        assert isinstance(order.attention, AttentionPattern)
        assert isinstance(order.trained_permutations, TrainedPermutations)

    def test_training_views_are_permutations_with_a_cut(self) -> None:
        """Every image gets a permutation of all positions, of which at least one is predicted: 0 <= num_known <
        length, and num_known is 0 for causal orders.

        If this fails: `order` holds int64 positions, batch x length, each once; clamp `num_known`.
        """
        order = self.order()
        for grid in self._grids():
            view = self._view(order, grid, batch_size=16)
            assert view.order.dtype == torch.int64, grid
            assert view.num_known.dtype == torch.int64, grid
            assert tuple(view.num_known.shape) == (16,), grid
            assert torch.equal(view.order.sort(dim=1).values, torch.arange(grid.length).expand(16, -1)), grid
            assert int(view.num_known.min()) >= 0, grid
            assert int(view.num_known.max()) < grid.length, grid
            if order.attention is AttentionPattern.CAUSAL:
                assert not bool(view.num_known.any()), f"a causal order shows tokens in advance, {grid}"

    def test_permutations_are_as_declared(self) -> None:
        """A FIXED order trains on one permutation, the same for every image and seed; an order over ANY on several.

        If this fails: correct `trained_permutations`: what a saved model can be asked for depends on it.
        """
        order, grid = self.order(), Grid(height=4, width=4)
        both = torch.cat([self._view(order, grid, batch_size=16, seed=seed).order for seed in (0, 1)])
        num_different = len(torch.unique(both, dim=0))
        if order.trained_permutations is TrainedPermutations.FIXED:
            assert num_different == 1
        else:
            assert num_different > 1

    def test_training_views_follow_the_generator(self) -> None:
        """The same seed gives the same view, and global generators have no say.

        If this fails: pass `generator=generator` to every random function, or draw nothing.
        """
        order, grid = self.order(), Grid(height=4, width=4)
        first, second = without_global_random_numbers(lambda: self._view(order, grid, batch_size=8))
        assert torch.equal(first.order, second.order)
        assert torch.equal(first.num_known, second.num_known)

    def test_generation_fills_every_unknown_position_once(self) -> None:
        """From an empty canvas and from partly known images, steps propose unknown positions only, the same number for
        every image, keep at least one each time, and end when all are known.

        If this fails: the message names the grid and the step. Keep track of what was kept in `accept`; an order that
        keeps only some tokens proposes the others again.
        """
        order = self.order()
        for grid in self._grids():
            for unknown in self._masks(order, grid):
                course = self._follow(order, unknown, grid)
                filled = torch.cat(course.kept, dim=1)
                expected = unknown.nonzero()[:, 1].view(_BATCH, -1)
                assert torch.equal(filled.sort(dim=1).values, expected), grid

    def test_num_steps_is_true(self) -> None:
        """`num_steps` of a course is at least the number of steps it takes; exactly that, if all proposals are kept.

        If this fails: a progress bar would be wrong; count the steps when the course is planned.
        """
        order = self.order()
        for grid in self._grids():
            for unknown in self._masks(order, grid):
                course = self._follow(order, unknown, grid)
                assert len(course.kept) <= course.num_steps, grid
                assert course.adaptive or len(course.kept) == course.num_steps, grid

    def test_asked_number_of_steps_is_taken(self) -> None:
        """A number of steps from 1 to that of unknown positions is either honoured or refused with
        `InvalidRequestError`.

        If this fails: never round a request silently. An order that takes one token a step refuses other numbers.
        """
        order = self.order()
        for grid in self._grids():
            unknown = torch.ones(_BATCH, grid.length, dtype=torch.bool)
            for num_steps in range(1, grid.length + 1):
                try:
                    course = self._follow(order, unknown, grid, num_steps=num_steps)
                except InvalidRequestError:
                    continue
                assert course.num_steps == num_steps, grid
                assert len(course.kept) <= num_steps, grid

    def test_impossible_numbers_of_steps_are_refused(self) -> None:
        """No step, fewer, or more steps than unknown positions raise `InvalidRequestError`.

        If this fails: check `num_steps` at the head of `generation`; a step that predicts nothing has no meaning.
        """
        order = self.order()
        for grid in self._grids():
            unknown = torch.ones(_BATCH, grid.length, dtype=torch.bool)
            for num_steps in (0, -1, grid.length + 1):
                with pytest.raises(InvalidRequestError):
                    self._follow(order, unknown, grid, num_steps=num_steps)

    def test_generation_follows_the_keys(self) -> None:
        """The same keys give the same course, and global generators have no say.

        If this fails: draw from `random`, whose row i belongs to image i, and keep nothing from one course to the next.
        """
        order, grid = self.order(), Grid(height=4, width=4)
        unknown = torch.ones(_BATCH, grid.length, dtype=torch.bool)
        first, second = without_global_random_numbers(lambda: self._follow(order, unknown, grid).kept)
        assert [step.tolist() for step in first] == [step.tolist() for step in second]

    def test_generation_of_an_image_does_not_depend_on_its_neighbours(self) -> None:
        """An image alone is filled in the order it has in the batch.

        If this fails: row i of `random` belongs to image i; nothing may be drawn once for the whole batch.
        """
        order, grid = self.order(), Grid(height=4, width=4)
        keys = torch.arange(50, 50 + _BATCH)
        for unknown in self._masks(order, grid):
            together = self._follow(order, unknown, grid, keys=keys).kept
            for row in range(_BATCH):
                alone = self._follow(order, unknown[row : row + 1], grid, keys=keys[row : row + 1]).kept
                assert [step[0].tolist() for step in alone] == [step[row].tolist() for step in together]

    def test_the_need_for_confidence_is_declared(self) -> None:
        """`accept(None)` works, or raises `InvalidRequestError` for an order that says `needs_confidence = True`: many
        heads can not tell how sure they are. The declaration of an installed order says the same.

        If this fails: an order that keeps all ignores the argument; an adaptive one says whether it can do without, as
        an attribute (`UsesConfidence`) and in its `OrderComponent`.
        """
        order, grid = self.order(), Grid(height=4, width=4)
        unknown = torch.ones(_BATCH, grid.length, dtype=torch.bool)
        needs = isinstance(order, UsesConfidence) and order.needs_confidence
        if self.component:
            declared = self.installed.component
            assert isinstance(declared, OrderComponent)
            assert declared.needs_confidence is needs, "needs_confidence of the declaration is not true"
        if needs:
            with pytest.raises(InvalidRequestError):
                self._follow(order, unknown, grid, confidence=tell_nothing)
            return
        course = self._follow(order, unknown, grid, confidence=tell_nothing)
        assert sum(step.shape[1] for step in course.kept) == grid.length

    def test_confidence_decides(self) -> None:
        """An order with the ability `UsesConfidence` takes another course when the head is sure of other tokens, and
        keeps as many tokens at each step.

        If this fails: an order that ignores what it is told leaves `needs_confidence` out; how many tokens a step keeps
        is decided before, or images of a batch would part.
        """
        order, grid = self.order(), Grid(height=4, width=4)
        if not isinstance(order, UsesConfidence):
            pytest.skip("this order does not use confidence")
        for unknown in self._masks(order, grid):
            courses = [
                self._follow(order, unknown, grid, confidence=tell).kept
                for tell in (sure_of_early_positions, sure_of_late_positions)
            ]
            assert [step.shape for step in courses[0]] == [step.shape for step in courses[1]]
            assert not torch.equal(torch.cat(courses[0], dim=1), torch.cat(courses[1], dim=1))

    def test_any_confidence_will_do(self) -> None:
        """Tokens of which the head is equally sure, and log-probabilities that are far apart, fill the image as well.

        If this fails: keep a number of tokens, not those above a threshold or a median, and sort instead of computing
        exponentials.
        """
        order = self.order()
        if not isinstance(order, UsesConfidence):
            pytest.skip("this order does not use confidence")
        for grid in self._grids():
            for unknown in self._masks(order, grid):
                for tell in (equally_sure, far_apart):
                    course = self._follow(order, unknown, grid, confidence=tell)
                    filled = torch.cat(course.kept, dim=1).sort(dim=1).values
                    assert torch.equal(filled, unknown.nonzero()[:, 1].view(_BATCH, -1)), grid

    def test_fixed_orders_generate_in_the_trained_order(self) -> None:
        """A causal model over one FIXED permutation is asked for tokens in the order it was trained on.

        If this fails: `training_view` and `generation` disagree about the permutation.
        """
        order = self.order()
        if (order.attention, order.trained_permutations) != (
            AttentionPattern.CAUSAL,
            TrainedPermutations.FIXED,
        ):
            pytest.skip("only causal orders over one permutation promise this")
        for grid in self._grids():
            trained = self._view(order, grid, batch_size=_BATCH).order
            unknown = torch.ones(_BATCH, grid.length, dtype=torch.bool)
            assert torch.equal(torch.cat(self._follow(order, unknown, grid).kept, dim=1), trained), grid

    def _grids(self) -> Iterator[Grid]:
        for height, width in self.grids:
            yield Grid(height=height, width=width)

    def _view(self, order: OrderPolicy, grid: Grid, *, batch_size: int, seed: int = 0) -> TrainingView:
        generator = torch.Generator().manual_seed(seed)
        return order.training_view(batch_size, grid, generator=generator, device=_CPU)

    def _masks(self, order: OrderPolicy, grid: Grid) -> list[Bool[Tensor, "batch length"]]:
        """Masks of unknown positions that the order must take: everything, and about half of it.

        What a fixed permutation knows is its beginning; an order over any permutation takes any set.
        """
        whole = torch.ones(_BATCH, grid.length, dtype=torch.bool)
        if grid.length == 1:
            return [whole]
        if order.trained_permutations is TrainedPermutations.FIXED:
            sequence = self._view(order, grid, batch_size=_BATCH).order
        else:
            sequence = torch.rand(whole.shape, generator=torch.Generator().manual_seed(9)).argsort(dim=1)
        half = whole.scatter(1, sequence[:, : grid.length // 2], False)
        return [whole, half]

    def _follow(
        self,
        order: OrderPolicy,
        unknown: Bool[Tensor, "batch length"],
        grid: Grid,
        *,
        num_steps: int | None = None,
        keys: Tensor | None = None,
        confidence: Confidence | None = None,
    ) -> Course:
        """Drive a generation to its end, as core's loop does, and check every step on the way.

        Where the order uses confidence, it is told what `confidence` says, by default random numbers.
        """
        keys = torch.arange(len(unknown)) if keys is None else keys
        random, before = KeyedRandom(keys), unknown.clone()
        steps = order.generation(unknown, grid, num_steps=num_steps, random=random.child(0))
        left, kept, adaptive = unknown.clone(), list[Tensor](), False
        while (positions := steps.propose()) is not None:
            where = f"{grid}, step {len(kept)}"
            assert bool(left.any()), f"propose() goes on although all is known: {where}"
            assert positions.dtype == torch.int64, where
            assert positions.ndim == 2, where
            assert positions.shape[0] == len(unknown), where
            assert positions.shape[1] > 0, f"empty step: {where}"
            assert all(len(set(row)) == len(row) for row in positions.tolist()), f"repeated position: {where}"
            assert bool(left.gather(1, positions).all()), f"a known position was proposed: {where}"
            announced = steps.num_kept if isinstance(steps, AnnouncesKept) else None
            told = None
            if isinstance(order, UsesConfidence):
                told = (confidence or sure_at_random)(positions, random.child(1 + len(kept)), grid)
            keep = steps.accept(told)
            assert keep.dtype == torch.bool, where
            assert keep.shape == positions.shape, where
            counts = set(keep.sum(dim=1).tolist())
            assert len(counts) == 1, f"images keep different numbers of tokens, {counts}: {where}"
            assert counts != {0}, f"nothing was kept: {where}"
            assert announced in (None, *counts), f"num_kept said {announced}, and {counts} were kept: {where}"
            adaptive = adaptive or not bool(keep.all())
            kept.append(positions[keep].view(len(unknown), -1))
            left.scatter_(1, kept[-1], False)
        assert torch.equal(unknown, before), "the mask of unknown positions was changed in place"
        return Course(kept=kept, num_steps=steps.num_steps, adaptive=adaptive)
