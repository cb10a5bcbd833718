"""How sure a head is, on its way to an order: who is told, who is refused, and what guidance makes of it."""

import pytest
import torch

from fluid_core import FluidModel, FluidPipeline, KeyedRandom
from fluid_core.errors import IncompatibleComponentsError, InvalidRequestError
from fluid_core.exchange import SamplerSettings
from fluid_core.generation import GenerationSettings, check_order, generate
from fluid_core.guidance import GuidanceSchedule
from fluid_core.sampler_choice import ChosenSampler, build_sampler
from fluid_core.testing.tiny import TinyColourCodes, TinyMeanColours, TinyRandomOrder, TinySurestFirstOrder, tiny_model
from fluid_orders import (
    CausalRandomOrder,
    ConfidenceOrder,
    ConfidenceOrderOptions,
    FixedOrder,
    HaltonOrder,
    RandomOrder,
)

SEEDS = torch.tensor([5, 9, 2**62])


class ListeningSteps:
    """Steps like others, which keep what they were told."""

    def __init__(self, steps, told):
        self._steps, self._told = steps, told
        self.num_steps, self.propose = steps.num_steps, steps.propose

    @property
    def num_kept(self):
        """As the steps inside."""
        return self._steps.num_kept

    def accept(self, confidence):
        """As the steps inside."""
        self._told.append((self.propose(), confidence))
        return self._steps.accept(confidence)


class Listening(TinySurestFirstOrder):
    """An order that says what it needs and keeps what it is told."""

    def __init__(self, needs=False):
        self.needs_confidence, self.told = needs, []

    def generation(self, unknown, grid, *, num_steps, random):
        """As the order it is."""
        steps = super().generation(unknown, grid, num_steps=num_steps, random=random)
        return ListeningSteps(steps, self.told)


def draw(model, *, order=None, **settings):
    """Three images."""
    with torch.no_grad():
        text = model.eval().align_text(["a red circle", "b", "c"])
    guidance = settings.pop("guidance", GuidanceSchedule())
    return generate(
        model,
        text,
        random=KeyedRandom(SEEDS),
        order=order,
        settings=GenerationSettings(guidance=guidance, **settings),
    )


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_an_order_is_told_the_log_probability_of_each_token(small_model, scale):
    """At temperature 0 the drawn ids are the likeliest, so the first step's confidences are those of the guided
    distribution on the empty canvas.
    """
    model, order = small_model("discrete"), Listening()
    draw(model, order=order, temperature=0.0, guidance=GuidanceSchedule(scale=scale))
    assert len(order.told) == 4
    positions, confidence = order.told[0]
    assert positions.shape == confidence.shape == (3, 9)
    space = model.tokenizer.token_space
    with torch.no_grad():
        logits = []
        for text in (model.align_text(["a red circle", "b", "c"]), model.aligner.unconditional(3)):
            rows = model.token_embedding.canvas(space.empty(3), torch.zeros(3, 9, dtype=torch.bool))
            hidden = model.transformer(rows, model.transformer.text(text.states, text.mask), causal=False)
            logits.append(model.head.logits(hidden.flatten(0, 1)))
        mixed = logits[1] + scale * (logits[0] - logits[1])
    expected = mixed.log_softmax(dim=1).amax(dim=1).view(3, 9)
    torch.testing.assert_close(confidence, expected, atol=1e-4, rtol=1e-4)


def test_only_orders_that_use_confidence_are_told(small_model, monkeypatch):
    """For all others the head draws as ever, and nothing is computed for it; a head that can not tell says nothing."""
    order = Listening()
    draw(tiny_model(tokenizer=TinyMeanColours(), order=order))
    assert [confidence for _, confidence in order.told] == [None] * 4
    model = small_model("discrete")
    monkeypatch.setattr(model.head, "confident_sampler", lambda settings: pytest.fail("asked for its confidence"))
    draw(model)


def test_confidence_changes_nothing_in_what_is_drawn():
    """The tokens of a step are those drawn without being asked how sure: from the same numbers."""
    model, order = tiny_model(tokenizer=TinyColourCodes(), order=TinyRandomOrder()), Listening()
    grid = model.tokenizer.token_space.grid
    assert torch.equal(draw(model, order=order, num_steps=1), draw(model, order=TinyRandomOrder(), num_steps=1))
    assert order.told[0][1].shape == (3, grid.length)


def test_heads_that_can_not_tell_are_refused_when_a_model_is_put_together(small_model):
    """One sentence; an order that can do without is taken."""
    model = small_model("continuous")
    parts = {"tokenizer": model.tokenizer, "text_encoder": model.text_encoder, "head": model.head, "backbone": "debug"}
    with pytest.raises(IncompatibleComponentsError) as refused:
        FluidModel(order=ConfidenceOrder(), **parts)
    assert str(refused.value) == (
        "The order ConfidenceOrder needs a head that can tell how sure it is of each token, and DiffusionHead can "
        "not: choose another order, or a head such as a softmax over ids."
    )
    FluidModel(order=Listening(), **parts)


def test_another_order_is_refused_before_anything_is_computed(small_model):
    """By the loop, and by the pipeline before a prompt is encoded."""
    model = small_model("continuous")
    model.transformer.forward = lambda *_, **__: pytest.fail("the backbone ran")
    text = model.aligner.unconditional(3)
    with pytest.raises(IncompatibleComponentsError, match="ConfidenceOrder needs a head that can tell"):
        generate(model, text, random=KeyedRandom(SEEDS), order=ConfidenceOrder())
    model.text_encoder.encode = lambda _: pytest.fail("the prompt was encoded")
    with pytest.raises(IncompatibleComponentsError, match="DiffusionHead can not"):
        FluidPipeline(model)("a", order=ConfidenceOrder())


def test_a_sampler_that_can_not_tell_is_refused(small_model):
    """A caller who prepares the sampler for another order hears what to do."""
    model = small_model("discrete")
    mute = ChosenSampler(sampler=lambda condition, request: None, backend="reference")
    text = model.aligner.unconditional(3)
    with pytest.raises(InvalidRequestError, match=r"needs a sampler that tells.*build_sampler\(..., order=order\)"):
        generate(model, text, random=KeyedRandom(SEEDS), order=ConfidenceOrder(), sampler=mute)


def test_the_confident_sampler_is_the_fused_one_where_it_can_tell(small_model):
    """Unless the vocabulary is limited or the reference asked for: and both give the same images."""
    head = small_model("discrete").head
    assert build_sampler(head, SamplerSettings(), order=ConfidenceOrder()).backend == "fused"
    assert build_sampler(head, SamplerSettings(options={"top_k": 3}), order=ConfidenceOrder()).backend == "reference"
    model = small_model("discrete")
    fused, reference = (draw(model, order=ConfidenceOrder(), head_backend=name) for name in ("fused", "reference"))
    assert torch.equal(fused, reference)


def test_guidance_follows_what_adaptive_steps_keep(small_model):
    """Scales of a linear schedule grow with the tokens kept, although every step proposes all that is unknown."""
    model, scales = small_model("discrete"), []
    confident = model.head.confident_sampler

    class Hearing:
        backend = "reference"

        def __init__(self, sampler):
            self._sampler = sampler

        def __call__(self, condition, request):
            return self.with_confidence(condition, request)[0]

        def with_confidence(self, condition, request):
            scales.append(float(request.guidance.scale[0]))
            return self._sampler.with_confidence(condition, request)

    model.head.confident_sampler = lambda settings: Hearing(confident(settings))
    order = ConfidenceOrder(ConfidenceOrderOptions(steps=(1, 2, 6)))
    draw(model, order=order, guidance=GuidanceSchedule(scale=10.0, kind="linear"), head_backend="reference")
    assert scales == pytest.approx([2.0, 4.0, 10.0])


@pytest.mark.parametrize("order", [HaltonOrder(), FixedOrder(), ConfidenceOrder(), RandomOrder()])
@pytest.mark.parametrize("trained", ["random", "halton", "causal"])
def test_models_of_any_permutation_sample_in_other_orders(small_model, trained, order):
    """What was trained in random order is sampled evenly, along a path, or surest first; each image by itself."""
    own = CausalRandomOrder() if trained == "causal" else trained
    model = small_model("discrete", own)
    check_order(model, order)
    tokens = draw(model, order=order, num_steps=5)
    model.tokenizer.token_space.validate(tokens)
    alone = generate(
        model,
        model.align_text(["b"]),
        random=KeyedRandom(SEEDS[1:2]),
        order=order,
        settings=GenerationSettings(num_steps=5),
    )
    assert torch.equal(alone[0], tokens[1])


def test_models_of_one_permutation_sample_in_no_other_order(small_model):
    """Raster models refuse every new order, and masked models a causal one."""
    raster, masked = small_model("discrete", "raster"), small_model("discrete", "halton")
    for order in (HaltonOrder(), FixedOrder(), ConfidenceOrder(), CausalRandomOrder()):
        with pytest.raises(IncompatibleComponentsError, match="can not sample with"):
            check_order(raster, order)
    for order in (CausalRandomOrder(), raster.order):
        with pytest.raises(IncompatibleComponentsError, match="can not sample with"):
            check_order(masked, order)
