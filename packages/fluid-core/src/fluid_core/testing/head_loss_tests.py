"""Tests of a head's loss, and of the head as a module."""

import copy

import pytest
import torch
from torch import Tensor

from fluid_core.errors import FluidError
from fluid_core.keyed_random import KeyedRandom
from fluid_core.model import check_component
from fluid_core.protocols import Head
from fluid_core.testing.example_tokens import assert_same_tokens
from fluid_core.testing.global_random_state import without_global_random_numbers
from fluid_core.testing.head_case import HeadCase
from fluid_core.testing.saved_state import saved_and_read


class HeadLossTests(HeadCase):
    """The part of `HeadSuite` that concerns training."""

    def test_is_a_head(self) -> None:
        """It is a module with everything the protocol asks for, and predicts the tokens it was built for.

        If this fails: inherit from `torch.nn.Module` beside implementing `fluid_core.protocols.Head`, and set
        `self.token_space = context.token_space`.
        """
        context = self._context()
        head = self._head(context)
        check_component(head, Head, needs_module=True)
        assert head.token_space == context.token_space

    def test_loss_is_one_finite_number_per_token(self) -> None:
        """`loss(...).total` and each of its parts have one finite float32 number for every token, zero tokens
        included.

        If this fails: do not reduce with `mean()` or `sum()` over tokens, core does; average over channels or noise
        levels yourself; `detach()` the parts; compute in float32.
        """
        head = self._head()
        for count in (7, 1, 0):
            loss = self._loss(head, self._batch(count))
            assert tuple(loss.total.shape) == (count,)
            assert loss.total.dtype == torch.float32
            assert bool(torch.isfinite(loss.total).all())
            assert loss.total.requires_grad
            for name, part in loss.parts.items():
                assert tuple(part.shape) == (count,), f"part '{name}'"
                assert not part.requires_grad, f"part '{name}' is not detached"
                assert bool(torch.isfinite(part).all()), f"part '{name}'"

    def test_loss_of_a_token_does_not_depend_on_its_neighbours(self) -> None:
        """A token alone, or in a batch of another order, has the loss it has in the batch.

        If this fails: look for statistics over the batch (batch normalisation, a mean over axis 0) and for noise
        that is drawn for the batch as a whole rather than from `random`, row by row.
        """
        head, batch = self._trained(), self._batch(9)
        together = self._loss(head, batch).total
        shuffled = torch.tensor([3, 8, 0, 5, 1, 7, 2, 6, 4])
        again = self._loss(head, batch.rows(shuffled)).total
        assert_same_tokens(again, together[shuffled], tolerance=self.tolerance, reason="in another order")
        for row in (0, 5):
            alone = self._loss(head, batch.rows(torch.tensor([row]))).total
            assert_same_tokens(alone, together[row : row + 1], tolerance=self.tolerance, reason="alone")

    def test_loss_follows_the_keys(self) -> None:
        """The same keys give the same loss, whatever the global generators do, and leave those untouched.

        If this fails: draw every number from `random` (`normal`, `uniform`, `integers`), never with `torch.randn` or
        numpy, and keep nothing from one call to the next.
        """
        head, batch = self._trained(), self._batch(16)
        first, second = without_global_random_numbers(lambda: self._loss(head, batch).total.detach())
        assert_same_tokens(second, first, reason="the loss changed from call to call")

    def test_gradients_reach_the_condition_and_every_parameter(self) -> None:
        """After a few training steps, the loss pulls at the hidden vectors and at every trainable parameter.

        If this fails: look for `detach()`, `no_grad()` or `.data` between input and loss, for a parameter that is
        never used, and for weights that start at zero on both sides of a product (neither can ever leave). A weight
        that never trains is a buffer, or has `requires_grad=False`.
        """
        head, batch = self._trained(), self._batch(64)
        condition = batch.condition.clone().requires_grad_()
        head.zero_grad()
        head.loss(condition, batch.target, random=KeyedRandom(batch.keys)).total.sum().backward()
        assert condition.grad is not None, "no gradient reaches the condition"
        assert bool((condition.grad != 0).any(dim=1).all()), "some conditions have no influence on the loss"
        assert bool(torch.isfinite(condition.grad).all())
        unreached = [
            name
            for name, parameter in head.named_parameters()
            if parameter.requires_grad and (parameter.grad is None or not bool(parameter.grad.any()))
        ]
        assert not unreached, f"no gradient reaches {unreached}"

    def test_training_lowers_the_loss(self) -> None:
        """A few dozen steps of Adam lower the loss on a problem that a linear layer can solve.

        If this fails: check the sign of the loss, and whether it compares with the target at all. A head that learns
        slowly may set `num_training_steps` or `learning_rate` in the subclass.
        """
        context = self._context()
        head, batch = self._head(context), self._batch(256)
        before = self._mean_loss(head, batch)
        self._train(head, context)
        after = self._mean_loss(head, batch)
        assert after < before - 0.02 * abs(before)

    def test_loss_depends_on_the_condition(self) -> None:
        """A trained head finds tokens less likely when they come with the hidden vectors of other tokens.

        If this fails: the head ignores `condition`, or looks at it in a way that does not train.
        """
        head, batch = self._trained(), self._batch(256)
        right = self._mean_loss(head, batch)
        order = torch.randperm(256, generator=torch.Generator().manual_seed(3))
        mixed = type(batch)(condition=batch.condition[order], target=batch.target, keys=batch.keys)
        assert self._mean_loss(head, mixed) > right

    def test_targets_that_do_not_fit_are_refused(self) -> None:
        """Targets that are no tokens of the head's space raise a `FluidError`, rather than give a number.

        If this fails: begin `loss` with `self.token_space.validate(target)`.
        """
        head, batch = self._head(), self._batch(6)
        for reason, target in self.invalid_tokens(batch.target).items():
            try:
                head.loss(batch.condition, target, random=KeyedRandom(batch.keys))
            except FluidError:
                continue
            pytest.fail(f"a target that is wrong ({reason}) was accepted")

    def test_runs_under_autocast(self) -> None:
        """Under bfloat16 autocast, loss and samples stay in the types they have without, and the loss in its size.

        If this fails: wrap the arithmetic in `torch.autocast(device.type, enabled=False)` and start it with
        `condition.float()`; hidden vectors may arrive in bfloat16.
        """
        head, batch = self._trained(), self._batch(32)
        plain = self._loss(head, batch).total.detach()
        reduced = type(batch)(condition=batch.condition.bfloat16(), target=batch.target, keys=batch.keys)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            for one in (batch, reduced):
                loss = self._loss(head, one).total
                assert loss.dtype == torch.float32
                assert_same_tokens(loss.mean(), plain.mean(), tolerance=0.05, reason="the mean loss under autocast")
                drawn = self._draw(head, one)
                assert drawn.dtype == head.token_space.dtype
                head.token_space.validate(drawn)

    def test_state_survives_saving(self) -> None:
        """A new head that is given the saved state of another has its losses and samples.

        If this fails: everything that was learned must be a parameter or a buffer, and tensors must not share
        memory. A module that belongs to somebody else, such as a tied embedding, must not be registered: hold it in
        a tuple.
        """
        context, batch = self._context(), self._batch(12)
        head = self._trained(context)
        other = self._head(context, seed=1)
        other.load_state_dict(saved_and_read(head), strict=True)
        assert_same_tokens(self._loss(other, batch).total, self._loss(head, batch).total, tolerance=1e-6, reason="loss")
        assert_same_tokens(
            self._draw(other, batch), self._draw(head, batch), tolerance=self.tolerance, reason="samples"
        )

    def test_a_copy_is_independent(self) -> None:
        """A deep copy, such as the moving average of the weights, has the same loss and keeps it while the original
        trains.

        If this fails: look for state outside the module, such as a global cache, a closure over `self`, or a
        parameter stored in a plain attribute of another object.
        """
        context, batch = self._context(), self._batch(64)
        head = self._trained(context)
        copied, before = copy.deepcopy(head), self._loss(head, batch).total.detach()
        assert_same_tokens(self._loss(copied, batch).total.detach(), before, tolerance=1e-6)
        self._train(head, context)
        assert_same_tokens(self._loss(copied, batch).total.detach(), before, tolerance=1e-6, reason="the copy changed")

    def _mean_loss(self, head: object, batch: object) -> float:
        with torch.no_grad():
            mean: Tensor = self._loss(head, batch).total.mean()  # type: ignore[arg-type]
        return float(mean)
