"""Guidance schedules: what scale each step gets, and what a step without guidance leaves out."""

import pytest
import torch

from fluid_core import KeyedRandom
from fluid_core.errors import InvalidRequestError
from fluid_core.generation import GenerationSettings, generate
from fluid_core.guidance import GuidanceSchedule
from fluid_orders import CausalRandomOrder, RandomOrder, RandomOrderOptions

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def test_constant_and_linear():
    """Constant is the same throughout; linear grows from 1 where nothing is known to the scale where all is."""
    assert [GuidanceSchedule(scale=5.0).at(share) for share in SHARES] == [5.0] * 5
    linear = GuidanceSchedule(scale=5.0, kind="linear")
    assert [linear.at(share) for share in SHARES] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert GuidanceSchedule(scale=0.0, kind="linear").at(0.75) == 0.25


def test_cosine_lies_below_linear_in_the_first_half_and_above_it_in_the_second():
    """It starts at 1, crosses the line in the middle and ends at the scale."""
    cosine = GuidanceSchedule(scale=5.0, kind="cosine")
    assert [cosine.at(share) for share in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 3.0, 5.0])
    assert cosine.at(0.25) == pytest.approx(1.0 + 4.0 * (1.0 - 2**-0.5) / 2.0)
    assert cosine.at(0.75) == pytest.approx(1.0 + 4.0 * (1.0 + 2**-0.5) / 2.0)


def test_an_interval_holds_its_end_and_not_its_start():
    """So that two intervals that touch share no step, and (0, 1) holds all of them."""
    interval = GuidanceSchedule(scale=5.0, kind="interval", interval=(0.25, 0.75))
    assert [interval.at(share) for share in SHARES] == [1.0, 1.0, 5.0, 5.0, 1.0]
    assert [interval.on(share) for share in SHARES] == [False, False, True, True, False]
    everything = GuidanceSchedule(scale=5.0, kind="interval", interval=(0.0, 1.0))
    assert all(everything.on(share) for share in (1 / 256, 0.5, 1.0))


def test_where_the_second_prediction_is_needed():
    """Nowhere at scale 1; at any other scale, 0 included, wherever the schedule is not off."""
    assert not GuidanceSchedule(kind="linear").active
    assert not GuidanceSchedule(kind="interval", interval=(0.0, 0.5)).on(0.3)
    assert GuidanceSchedule(scale=0.0).active
    assert all(GuidanceSchedule(scale=0.0, kind=kind).on(0.1) for kind in ("constant", "linear", "cosine"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": -1.0}, "0 or more, found -1.0"),
        ({"scale": float("inf")}, "0 or more, found inf"),
        ({"kind": "interval"}, "needs an interval .* found None"),
        ({"kind": "interval", "interval": (0.5, 0.5)}, r"increasing.*found \(0.5, 0.5\)"),
        ({"kind": "interval", "interval": (-0.1, 0.5)}, r"found \(-0.1, 0.5\)"),
        ({"kind": "interval", "interval": (0.2, 1.5)}, r"found \(0.2, 1.5\)"),
        ({"kind": "interval", "interval": (0.2, float("nan"))}, "found .*nan"),
        ({"interval": (0.2, 0.8)}, "no meaning in the schedule 'constant'"),
        ({"kind": "linear", "interval": (0.2, 0.8)}, "no meaning in the schedule 'linear'"),
    ],
)
def test_schedules_without_meaning_are_refused(arguments, message):
    """Each with what was found."""
    with pytest.raises(InvalidRequestError, match=message):
        GuidanceSchedule(**arguments)


@pytest.fixture
def sample(small_model):
    """A function that draws two images with a model of nine tokens, and tells how many rows each backbone pass had."""

    def make(model, schedule, **settings):
        rows = []
        hook = model.transformer.output_norm.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
        with torch.no_grad():
            text = model.eval().align_text(["a red circle", "two blue squares above a star"])
        random = KeyedRandom(torch.tensor([5, 9]))
        tokens = generate(model, text, random=random, settings=GenerationSettings(guidance=schedule, **settings))
        hook.remove()
        return tokens, rows

    return make


ORDERS = {
    "raster": "raster",
    "random": RandomOrder(RandomOrderOptions(steps="constant")),
    "causal": CausalRandomOrder(),
}
INTERVAL = GuidanceSchedule(scale=4.0, kind="interval", interval=(0.3, 0.7))


@pytest.mark.parametrize("kind", ["continuous", "discrete"])
@pytest.mark.parametrize("order", ORDERS)
def test_an_interval_leaves_out_what_makes_no_difference(small_model, sample, monkeypatch, order, kind):
    """The tokens are those of computing both predictions at every step and mixing them at scale 1 where guidance is
    off: for a causal cache too, whose second branch must be current when guidance sets in.
    """
    model = small_model(kind, ORDERS[order])
    found, _ = sample(model, INTERVAL)
    monkeypatch.setattr(GuidanceSchedule, "on", lambda self, share_after: True)
    monkeypatch.setattr(GuidanceSchedule, "at", lambda self, share: self.scale if 0.3 < share <= 0.7 else 1.0)
    expected, _ = sample(model, INTERVAL)
    if kind == "discrete":
        assert torch.equal(found, expected)
    else:
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("order", ORDERS)
def test_an_interval_differs_from_guidance_everywhere_and_nowhere(small_model, sample, order):
    """It does guide, and not at all steps."""
    model = small_model("continuous", ORDERS[order])
    found, _ = sample(model, INTERVAL)
    assert not torch.equal(found, sample(model, GuidanceSchedule(scale=4.0))[0])
    assert not torch.equal(found, sample(model, GuidanceSchedule())[0])


def test_a_bidirectional_model_computes_the_second_half_inside_the_interval_alone(small_model, sample):
    """Nine steps of one token: the shares after them in (0.3, 0.7] are those of tokens 3 to 6."""
    model = small_model("discrete", ORDERS["random"])
    _, rows = sample(model, INTERVAL, num_steps=9)
    assert rows == [2, 2, 4, 4, 4, 4, 2, 2, 2]


def test_a_causal_model_keeps_both_branches_current(small_model, sample):
    """All rows go through the cache, guided or not."""
    model = small_model("discrete", "raster")
    _, rows = sample(model, INTERVAL)
    assert rows == [4] * 9


def test_the_pipeline_takes_the_interval(small_model):
    """As an argument beside the schedule."""
    from fluid_core import FluidPipeline

    pipeline = FluidPipeline(small_model("discrete"))
    call = {"guidance_scale": 4.0, "seed": 3, "output_type": "tokens"}
    everywhere = pipeline("a", **call).tokens
    always = pipeline("a", guidance_schedule="interval", guidance_interval=(0.0, 1.0), **call).tokens
    late = pipeline("a", guidance_schedule="interval", guidance_interval=(0.6, 1.0), **call).tokens
    assert torch.equal(always, everywhere)
    assert not torch.equal(late, everywhere)
