"""The sampling loop: guidance, known tokens, steps, independence of the batch, and requests that have no meaning."""

from itertools import pairwise

import attrs
import pytest
import torch

from fluid_core import KeyedRandom, TrainedPermutations
from fluid_core.errors import (
    IncompatibleComponentsError,
    InvalidComponentError,
    InvalidRequestError,
    InvalidTokensError,
)
from fluid_core.generation import GenerationSettings, check_order, generate
from fluid_core.generation.known_tokens import known_at_first
from fluid_core.guidance import GuidanceSchedule

COMBINATIONS = [("continuous", "random"), ("continuous", "raster"), ("discrete", "random"), ("discrete", "raster")]
PROMPTS = ["a red circle", "two blue squares above a star", "a"]
SEEDS = torch.tensor([5, 9, 2**62])


@pytest.fixture
def draw():
    """A function that generates tokens for prompts with a seed for each."""

    def make(model, prompts=PROMPTS, seeds=SEEDS, *, negative=None, order=None, tokens=None, known=None, **settings):
        guidance = GuidanceSchedule(scale=settings.pop("scale", 1.0), kind=settings.pop("kind", "constant"))
        callback = settings.pop("callback", None)
        model.eval()
        with torch.no_grad():
            text = model.align_text(prompts)
            negative = negative if negative is None else model.align_text(negative)
        return generate(
            model,
            text,
            random=KeyedRandom(seeds),
            negative=negative,
            settings=GenerationSettings(guidance=guidance, **settings),
            order=order,
            tokens=tokens,
            known=known,
            callback=callback,
        )

    return make


def same(one, other):
    """Equal: ids exactly, vectors up to rounding."""
    if not one.is_floating_point():
        return torch.equal(one, other)
    return torch.allclose(one, other, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize(("tokens", "order"), COMBINATIONS)
def test_tokens_belong_to_their_space_and_follow_the_seed(small_model, draw, tokens, order):
    """Tokens are valid, the same for the same seeds, and others for other seeds."""
    model = small_model(tokens, order)
    first = draw(model)
    model.tokenizer.token_space.validate(first)
    assert first.shape == (3, 9, *model.tokenizer.token_space.token_shape)
    assert torch.equal(first, draw(model))
    assert not same(first, draw(model, seeds=SEEDS + 1))
    assert not same(first, draw(model, prompts=["other", "words", "here"]))


@pytest.mark.parametrize(("tokens", "order"), COMBINATIONS)
def test_an_image_does_not_change_with_its_neighbours(small_model, draw, tokens, order):
    """Alone, in a batch, or elsewhere in it, an image with the same seed comes out the same."""
    model = small_model(tokens, order)
    together = draw(model, scale=2.0)
    for index in range(3):
        alone = draw(model, prompts=PROMPTS[index : index + 1], seeds=SEEDS[index : index + 1], scale=2.0)
        assert same(alone[0], together[index])
    turned = draw(model, prompts=PROMPTS[::-1], seeds=SEEDS.flip(0), scale=2.0)
    assert same(turned.flip(0), together)


@pytest.mark.parametrize(("tokens", "order"), COMBINATIONS)
def test_guidance_of_scale_one_is_no_guidance(small_model, draw, tokens, order, monkeypatch):
    """Scale 1 gives the conditional tokens, both by leaving the second branch out and by computing it."""
    model = small_model(tokens, order)
    plain = draw(model)
    assert torch.equal(plain, draw(model, scale=1.0))
    assert not same(plain, draw(model, scale=4.0))
    monkeypatch.setattr(GuidanceSchedule, "active", property(lambda self: True))
    assert same(plain, draw(model, scale=1.0))


@pytest.mark.parametrize(("tokens", "order"), COMBINATIONS)
def test_guidance_of_scale_zero_is_the_unconditional_model(small_model, draw, tokens, order):
    """At scale 0 prompts make no difference; for vectors at temperature 0, since their variance keeps the text."""
    model = small_model(tokens, order)
    temperature = 1.0 if tokens == "discrete" else 0.0
    unguided = generate(
        model.eval(),
        model.aligner.unconditional(3),
        random=KeyedRandom(SEEDS),
        settings=GenerationSettings(temperature=temperature),
    )
    assert same(draw(model, scale=0.0, temperature=temperature), unguided)
    assert not same(draw(model, temperature=temperature), unguided)


@pytest.mark.parametrize(("tokens", "order"), COMBINATIONS)
def test_a_negative_prompt_takes_the_place_of_no_text(small_model, draw, tokens, order):
    """It changes guided tokens; at scale 0 it is all that counts; equal to the prompt it cancels guidance."""
    model = small_model(tokens, order)
    negative = ["blurry and much, much longer than any prompt", "x", "grey"]
    temperature = 1.0 if tokens == "discrete" else 0.0
    assert not same(draw(model, scale=3.0), draw(model, scale=3.0, negative=negative))
    only_negative = draw(model, prompts=negative, temperature=temperature)
    assert same(draw(model, scale=0.0, negative=negative, temperature=temperature), only_negative)
    assert same(draw(model, scale=3.0, negative=PROMPTS), draw(model))


@pytest.mark.parametrize(("tokens", "order"), COMBINATIONS)
def test_known_tokens_stay_exactly(small_model, draw, tokens, order):
    """Known tokens come back bit-equal, what stands elsewhere makes no difference, and the caller's tensors stay."""
    model = small_model(tokens, order)
    space = model.tokenizer.token_space
    given = torch.randn(3, 9, 192) if tokens == "continuous" else torch.randint(24, (3, 9))
    known = (torch.arange(9) < 4).repeat(3, 1)
    if order == "random":
        known = torch.stack([torch.randperm(9) < 4 for _ in range(3)])
    original, mask = given.clone(), known.clone()
    result = draw(model, tokens=given, known=known, scale=2.0)
    assert torch.equal(result[known], original[known])
    assert torch.equal(given, original)
    assert torch.equal(known, mask)
    filler = torch.full_like(given, float("nan")) if space.kind == "continuous" else torch.full_like(given, -7)
    hidden = torch.where(known.view(3, 9, *[1] * len(space.token_shape)), given, filler)
    assert torch.equal(draw(model, tokens=hidden, known=known, scale=2.0), result)
    assert not same(draw(model, scale=2.0)[~known], result[~known])


def test_known_positions_are_truth_values(small_model):
    """Ones and zeros would be positions to index with."""
    model, known = small_model(), (torch.arange(9) < 4).repeat(3, 1)
    unchecked = getattr(known_at_first, "__wrapped__", known_at_first)
    with pytest.raises(InvalidRequestError, match=r"known as True and False, found int64. Convert it with known.bool"):
        unchecked(model, 3, torch.zeros(3, 9, 192), known.long())


@pytest.mark.parametrize(("tokens", "order"), COMBINATIONS)
def test_a_complete_image_is_returned_unchanged(small_model, draw, tokens, order):
    """With everything known nothing is drawn."""
    model = small_model(tokens, order)
    given = torch.randn(3, 9, 192) if tokens == "continuous" else torch.randint(24, (3, 9))
    steps = []
    result = draw(model, tokens=given, known=torch.ones(3, 9, dtype=torch.bool), callback=steps.append)
    assert torch.equal(result, given)
    assert steps == []


@pytest.mark.parametrize("num_steps", [1, 4, 9, None])
def test_the_number_of_steps_is_honoured(small_model, draw, num_steps):
    """The callback is told every step; tokens once known never change; in the end all are known."""
    told = []
    result = draw(small_model(), num_steps=num_steps, callback=told.append)
    expected = num_steps or 9
    assert [progress.step for progress in told] == list(range(1, expected + 1))
    assert {progress.num_steps for progress in told} == {expected}
    for before, after in pairwise(told):
        assert bool((after.known | ~before.known).all())
        assert int(after.known.sum()) > int(before.known.sum())
        assert torch.equal(after.tokens[before.known], before.tokens[before.known])
    assert bool(told[-1].known.all())
    assert torch.equal(told[-1].tokens, result)


def test_the_number_of_head_steps_is_honoured(small_model, draw):
    """An iterative head evaluates its network as often as asked; a head that draws at once refuses."""
    model = small_model()
    calls = []
    model.head.network.register_forward_hook(lambda *_: calls.append(1))
    # The fused sampler does not call the module.
    draw(model, num_steps=1, num_head_steps=3, head_backend="reference")
    assert len(calls) == 3
    with pytest.raises(InvalidRequestError, match="one step, found num_steps=3"):
        draw(small_model("discrete"), num_head_steps=3)


def test_temperature_zero_leaves_no_chance_to_ids(small_model, draw):
    """The likeliest ids do not depend on the seed in raster order, where nothing else is random."""
    model = small_model("discrete", "raster")
    assert torch.equal(draw(model, temperature=0.0), draw(model, seeds=SEEDS + 1, temperature=0.0))


def test_generation_leaves_no_trace(small_model, draw):
    """No gradient, no change of weights, and no number taken from the global generator."""
    model = small_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    assert not draw(model, scale=2.0).requires_grad
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, "at least 1 generation step, found num_steps=0"),
        ({"num_steps": -3}, "found num_steps=-3"),
        ({"num_steps": 10}, "found num_steps=10 for 9 unknown"),
        ({"num_head_steps": 0}, "found.* 0"),
        ({"temperature": -0.5}, "temperature of 0 or more, found -0.5"),
        ({"temperature": float("nan")}, "temperature of 0 or more, found nan"),
        ({"temperature": float("inf")}, "temperature of 0 or more, found inf"),
        ({"scale": float("nan")}, "guidance scale of 0 or more, found nan"),
        ({"scale": -1.0}, "guidance scale of 0 or more, found -1.0"),
        ({"kind": "quadratic", "scale": 2.0}, "'cosine' or 'interval', found 'quadratic'"),
    ],
)
def test_settings_without_meaning_are_refused(small_model, draw, settings, message):
    """Each gets a message that says what was found."""
    with pytest.raises(InvalidRequestError, match=message):
        draw(small_model(), **settings)


def test_raster_takes_one_step_a_token(small_model, draw):
    """Another number of steps can not be honoured by raster order."""
    with pytest.raises(InvalidRequestError, match="9 unknown tokens take exactly 9 steps, found num_steps=8"):
        draw(small_model(order="raster"), num_steps=8)


def test_known_tokens_that_do_not_fit_are_refused(small_model, draw):
    """Half of the pair, wrong shapes, unequal counts and values that are no tokens each get a message."""
    model, space = small_model(), (3, 9, 192)
    known = (torch.arange(9) < 4).repeat(3, 1)
    with pytest.raises(InvalidRequestError, match="tokens and known together"):
        draw(model, tokens=torch.zeros(space))
    with pytest.raises(InvalidRequestError, match="tokens and known together"):
        draw(model, known=known)
    with pytest.raises(InvalidRequestError, match=r"shape \(3, 9, 192\).*found \(3, 9, 7\)"):
        draw(model, tokens=torch.zeros(3, 9, 7), known=known)
    with pytest.raises(InvalidRequestError, match="for 3 images"):
        draw(model, tokens=torch.zeros(2, 9, 192), known=known[:2])
    uneven = known.clone()
    uneven[1, 8] = True
    with pytest.raises(InvalidRequestError, match=r"same number of known tokens.*\[4, 5, 4\]"):
        draw(model, tokens=torch.zeros(space), known=uneven)
    with pytest.raises(InvalidTokensError, match="NaN"):
        draw(model, tokens=torch.full(space, float("nan")), known=known)
    with pytest.raises(InvalidTokensError, match="from 0 to 23"):
        draw(small_model("discrete"), tokens=torch.full((3, 9), 24), known=known)


def test_rows_of_randomness_and_text_must_agree(small_model, draw):
    """One row of random numbers for three images would give them all the same noise: refused."""
    with pytest.raises(InvalidRequestError, match="each of the 3 rows of text"):
        draw(small_model(), seeds=SEEDS[:1])
    with pytest.raises(InvalidRequestError, match="each of the 3 rows of text"):
        draw(small_model(), scale=2.0, negative=["one"])


def test_no_prompt_gives_no_image(small_model):
    """An empty batch is answered with an empty batch."""
    model = small_model()
    text = model.aligner.unconditional(0)
    assert generate(model, text, random=KeyedRandom(SEEDS[:0])).shape == (0, 9, 192)


def test_another_order_needs_a_model_trained_for_it(small_model, shuffled_causal_order):
    """A model of one fixed permutation takes only its own order. One of any permutation takes every order of its
    attention, and a causal one also those that are bidirectional.
    """
    raster, random = small_model(order="raster"), small_model(order="random")
    shuffled = small_model(order=shuffled_causal_order())

    class FixedBidirectional(type(random.order)):
        trained_permutations = TrainedPermutations.FIXED

    check_order(raster, raster.order)
    check_order(random, FixedBidirectional())
    check_order(shuffled, raster.order)
    # From a cache any positions can come next, so that bidirectional orders fit as well.
    check_order(shuffled, random.order)
    check_order(shuffled, FixedBidirectional())
    for model, order in ((raster, random.order), (random, raster.order), (raster, shuffled.order)):
        with pytest.raises(IncompatibleComponentsError, match=r"was trained with .* can not sample with"):
            check_order(model, order)


def test_a_fixed_order_with_other_options_is_another_order(small_model):
    """Two orders of one class may be two permutations: the model takes the one with its own options."""

    @attrs.frozen(kw_only=True)
    class ColumnOptions:
        from_the_right: bool = False

    class Columns(type(small_model(order="raster").order)):
        def __init__(self, **options):
            self.options = ColumnOptions(**options)

    model = small_model(order=Columns())
    check_order(model, Columns())
    with pytest.raises(IncompatibleComponentsError, match="can not sample with Columns with other options"):
        check_order(model, Columns(from_the_right=True))


def test_a_fixed_order_that_goes_another_way_is_another_order(small_model):
    """Also where a plugin keeps what decides its permutation for itself."""

    class Path(type(small_model(order="raster").order)):
        def __init__(self, *, backwards=False):
            self._backwards = backwards

        def training_view(self, batch_size, grid, *, generator, device):
            view = super().training_view(batch_size, grid, generator=generator, device=device)
            return attrs.evolve(view, order=view.order.flip(1)) if self._backwards else view

    model = small_model(order=Path())
    check_order(model, Path())
    with pytest.raises(IncompatibleComponentsError, match="can not sample with Path with other options"):
        check_order(model, Path(backwards=True))


def test_a_model_of_any_permutation_samples_in_raster_order(small_model, draw, shuffled_causal_order):
    """A causal model over any permutation fills the picture row by row when asked to."""
    told = []
    model = small_model(order=shuffled_causal_order())
    tokens = draw(model, order=small_model(order="raster").order, callback=told.append)
    assert [int(progress.known[0].sum()) for progress in told] == list(range(1, 10))
    assert all(bool(progress.known[0, : progress.step].all()) for progress in told)
    assert bool(tokens.isfinite().all())


@attrs.frozen
class UnevenSteps:
    """Breaks the contract: proposes four positions and keeps those in `keep`."""

    keep: torch.Tensor
    num_steps: int = 1

    def propose(self):
        """Always the same."""
        return torch.arange(4).repeat(3, 1)

    def accept(self, confidence):
        """What it was told to."""
        return self.keep


@pytest.mark.parametrize("kept", [[[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 1]], [[0] * 4] * 3])
def test_an_order_that_keeps_unequally_is_caught(small_model, draw, kept):
    """Keeping different numbers of tokens, or none, would mix images or never end: the order is named."""

    class Uneven(type(small_model().order)):
        def generation(self, unknown, grid, *, num_steps, random):
            """The broken steps."""
            return UnevenSteps(torch.tensor(kept, dtype=torch.bool))

    with pytest.raises(InvalidComponentError, match="The order Uneven kept"):
        draw(small_model(), order=Uneven())


def test_the_head_is_told_scale_and_progress_of_each_step(small_model, draw, monkeypatch):
    """One scale per token, of what is known after the step, and as progress the share that is known before."""
    model = small_model()
    requests = []
    sampler = model.head.sampler

    def listening(settings):
        inner = sampler(settings)
        return lambda condition, request: requests.append(request) or inner(condition, request)

    monkeypatch.setattr(model.head, "sampler", listening)
    draw(model, scale=3.0, kind="linear", num_steps=4, temperature=0.7)
    progress = [request.progress for request in requests]
    assert progress[0] == 0.0
    for request, known_after in zip(requests, [*progress[1:], 1.0], strict=True):
        assert torch.allclose(request.guidance.scale, torch.tensor(1.0 + 2.0 * known_after))
        assert request.guidance.scale.shape == (len(request.guidance.negative),)
        assert request.temperature == 0.7
    assert progress == sorted(set(progress))
