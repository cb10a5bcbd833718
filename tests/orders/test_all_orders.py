"""What every order with step sizes promises: exact courses through real permutations, and options of its steps."""

import random
from typing import get_args

import pytest
import torch

from fluid_core.configuration.structuring import structure, unstructure
from fluid_core.errors import ConfigurationError, InvalidRequestError
from fluid_core.exchange import AttentionPattern, TrainedPermutations
from fluid_core.token_space import Grid
from fluid_orders import (
    CausalRandomOrder,
    CausalRandomOrderOptions,
    ConfidenceOrder,
    ConfidenceOrderOptions,
    FixedOrder,
    FixedOrderOptions,
    HaltonOrder,
    HaltonOrderOptions,
    RandomOrder,
    RandomOrderOptions,
)
from fluid_orders.options import StepCurve
from fluid_orders.step_sizes import step_sizes_on_curve

OPTIONS = {
    RandomOrder: RandomOrderOptions,
    CausalRandomOrder: CausalRandomOrderOptions,
    HaltonOrder: HaltonOrderOptions,
    ConfidenceOrder: ConfidenceOrderOptions,
    FixedOrder: FixedOrderOptions,
}


def surer_of_later(positions, step):
    """Confidence that turns a course around; orders fixed in advance ignore it."""
    return -((positions - 7.0 * step).abs())


@pytest.mark.parametrize("curve", get_args(StepCurve))
@pytest.mark.parametrize("order", OPTIONS)
def test_every_unknown_position_is_predicted_once(order, curve, follow, random_masks):
    """Over all steps the tokens kept are exactly the unknown positions of each image, in the sizes of the curve."""
    chosen = random.Random(f"{order.__name__} {curve}")
    for _ in range(12):
        height, width = chosen.choice([(1, 1), (1, 9), (4, 4), (7, 5), (16, 16), (32, 32), (1, 1024)])
        num_unknown = chosen.randint(1, height * width)
        num_steps = chosen.randint(1, min(num_unknown, 80))
        unknown = random_masks(2, height * width, num_unknown, seed=chosen.randrange(1000))
        built = order(OPTIONS[order](steps=curve))
        positions, sizes = follow(
            built, unknown, grid=Grid(height=height, width=width), num_steps=num_steps, confidence=surer_of_later
        )
        assert tuple(sizes) == step_sizes_on_curve(num_unknown, num_steps, curve)
        assert torch.equal(positions.sort(dim=1).values, unknown.nonzero()[:, 1].view(2, -1))


@pytest.mark.parametrize("order", OPTIONS)
def test_steps_and_their_number(order, follow):
    """A call's number counts before the options', which counts before 64; fewer positions than that take fewer."""
    whole = torch.ones(1, 256, dtype=torch.bool)

    def num_steps(unknown=whole, asked=None, **options):
        return len(follow(order(OPTIONS[order](**options)), unknown, num_steps=asked, confidence=surer_of_later)[1])

    assert num_steps() == 64
    assert num_steps(num_steps=16) == 16
    assert num_steps(num_steps=16, asked=100) == 100
    assert num_steps(torch.ones(1, 10, dtype=torch.bool)) == 10
    assert num_steps(torch.ones(1, 10, dtype=torch.bool), num_steps=16) == 10
    assert num_steps(steps=(6, 100, 150)) == 3


@pytest.mark.parametrize("order", OPTIONS)
def test_impossible_numbers_of_steps_are_refused(order, follow, random_masks):
    """Zero, negative, or more steps than unknown positions: an error, not an empty step."""
    for num_steps in (0, -1, 41):
        with pytest.raises(InvalidRequestError, match=f"num_steps={num_steps}"):
            follow(order(), random_masks(2, 64, 40), num_steps=num_steps, confidence=surer_of_later)
    with pytest.raises(InvalidRequestError, match="predict 64 tokens, found 40 unknown"):
        follow(order(OPTIONS[order](steps=(4, 60))), random_masks(2, 64, 40), confidence=surer_of_later)


@pytest.mark.parametrize("order", OPTIONS)
def test_masks_that_do_not_fit_are_refused(order, follow, random_masks):
    """Different numbers of unknown positions in one batch, and a mask of another grid."""
    uneven = torch.cat([random_masks(1, 64, 40), random_masks(1, 64, 41)])
    with pytest.raises(InvalidRequestError, match=r"found \[40, 41\]"):
        follow(order(), uneven)
    with pytest.raises(InvalidRequestError, match="4 x 4 tokens, found one over 64"):
        follow(order(), random_masks(2, 64, 40), grid=Grid(height=4, width=4))


@pytest.mark.parametrize("order", OPTIONS)
def test_all_of_them_train_over_any_permutation(order):
    """So a model of one can sample in another; all but one of them are masked models that train alike."""
    built, grid = order(), Grid(height=4, width=4)
    assert built.trained_permutations is TrainedPermutations.ANY
    view = built.training_view(64, grid, generator=torch.Generator().manual_seed(3), device=torch.device("cpu"))
    if order is CausalRandomOrder:
        assert built.attention is AttentionPattern.CAUSAL
        return
    assert built.attention is AttentionPattern.BIDIRECTIONAL
    random_view = RandomOrder().training_view(
        64, grid, generator=torch.Generator().manual_seed(3), device=torch.device("cpu")
    )
    assert torch.equal(view.order, random_view.order)
    assert torch.equal(view.num_known, random_view.num_known)


@pytest.mark.parametrize("options", OPTIONS.values())
def test_options_go_through_a_file_and_back(options):
    """Curves and sizes as TOML and JSON have them."""
    for steps in ("linear", [1, 2, 13]):
        built = structure({"steps": steps}, options)
        assert built.steps == (steps if isinstance(steps, str) else tuple(steps))
        assert structure(unstructure(built), options) == built
    with pytest.raises(ConfigurationError, match="'cosine', 'arccos', 'linear', 'constant'"):
        structure({"steps": "cosin"}, options)
    with pytest.raises(ConfigurationError, match="step sizes of 1 or more"):
        structure({"steps": [3, 0]}, options)
