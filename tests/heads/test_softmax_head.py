"""The softmax head: loss, tied weights, and keyed sampling."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from fluid_core.errors import IncompatibleComponentsError, InvalidRequestError, InvalidTokensError
from fluid_core.exchange import Guidance, HeadContext, SamplerSettings, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import ContinuousTokens, DiscreteTokens, Grid
from fluid_heads.plugin import fluid_register_heads
from fluid_heads.softmax.head import SoftmaxHead
from fluid_heads.softmax.options import SoftmaxOptions

VOCABULARY, WIDTH = 11, 6
SPACE = DiscreteTokens(grid=Grid(height=2, width=2), vocabulary_size=VOCABULARY)


class Owner(nn.Module):
    """A model in miniature: owns the embedding and the head tied to it."""

    def __init__(self, options: SoftmaxOptions | None = None) -> None:
        super().__init__()
        self.embedding = SPACE.embedding(WIDTH)
        nn.init.normal_(self.embedding.weight)
        self.head = SoftmaxHead(SPACE, WIDTH, options, token_embedding=self.embedding)


def generator(seed: int = 0) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


def keys(count: int, seed: int = 0) -> KeyedRandom:
    """A random source with one row per token."""
    return KeyedRandom.from_generator(generator(seed), count)


@pytest.fixture
def owner() -> Owner:
    """A fresh model in miniature with a bias that is not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        owner = Owner()
        nn.init.normal_(owner.head.bias)
    return owner


@pytest.fixture
def condition() -> Tensor:
    """Hidden vectors of five tokens."""
    return torch.randn(5, WIDTH, generator=generator(2))


def test_loss_is_cross_entropy_in_nats(owner: Owner, condition: Tensor) -> None:
    """Each token's loss is minus the log-probability of its id."""
    target = torch.tensor([0, 3, 10, 7, 3])
    loss = owner.head.loss(condition, target, random=keys(5))
    logits = condition @ owner.embedding.weight.T + owner.head.bias
    expected = -logits.softmax(dim=1)[torch.arange(5), target].log()
    torch.testing.assert_close(loss.total, expected)
    torch.testing.assert_close(loss.parts["cross_entropy"], expected.detach())
    assert not loss.parts["cross_entropy"].requires_grad


def test_an_uninformed_head_costs_the_logarithm_of_the_vocabulary(condition: Tensor) -> None:
    """With all logits equal every token costs log(vocabulary) nats."""
    owner = Owner()
    nn.init.zeros_(owner.embedding.weight)
    loss = owner.head.loss(condition, torch.arange(5), random=keys(5))
    torch.testing.assert_close(loss.total.detach(), torch.full((5,), math.log(VOCABULARY)))


def test_label_smoothing_mixes_in_the_uniform_distribution(condition: Tensor) -> None:
    """The total is (1 - e) * cross-entropy + e * mean over ids; the part stays plain."""
    owner = Owner(SoftmaxOptions(label_smoothing=0.2))
    target = torch.arange(5)
    loss = owner.head.loss(condition, target, random=keys(5))
    log_probabilities = owner.head.logits(condition).log_softmax(dim=1)
    plain = -log_probabilities[torch.arange(5), target]
    torch.testing.assert_close(loss.parts["cross_entropy"], plain.detach())
    torch.testing.assert_close(loss.total, 0.8 * plain - 0.2 * log_probabilities.mean(dim=1))


def test_loss_of_a_token_alone_equals_its_loss_in_a_batch(owner: Owner, condition: Tensor) -> None:
    """Tokens do not see each other."""
    target = torch.tensor([1, 2, 3, 4, 5])
    together = owner.head.loss(condition, target, random=keys(5)).total
    alone = owner.head.loss(condition[2:3], target[2:3], random=keys(1)).total
    torch.testing.assert_close(alone, together[2:3])


def test_tied_weights_are_saved_and_counted_once(owner: Owner) -> None:
    """The head adds only its bias to state and parameters."""
    assert set(owner.state_dict()) == {"embedding.weight", "head.bias"}
    assert sum(p.numel() for p in owner.parameters()) == VOCABULARY * WIDTH + VOCABULARY


def test_tied_weights_get_gradients_from_the_loss(owner: Owner, condition: Tensor) -> None:
    """Training the head trains the embedding."""
    owner.head.loss(condition, torch.arange(5), random=keys(5)).total.mean().backward()
    assert owner.embedding.weight.grad is not None
    assert float(owner.embedding.weight.grad.abs().sum()) > 0


def test_tied_weights_survive_a_deep_copy_of_the_model(owner: Owner, condition: Tensor) -> None:
    """A copied head follows the copied embedding, and the original its own."""
    before = owner.head.logits(condition)
    duplicate = copy.deepcopy(owner)
    assert duplicate.head.output_weight is duplicate.embedding.weight
    assert duplicate.embedding.weight is not owner.embedding.weight
    with torch.no_grad():
        duplicate.embedding.weight.mul_(3.0)
    torch.testing.assert_close(owner.head.logits(condition), before)
    assert not torch.allclose(duplicate.head.logits(condition), before)


def test_tied_weights_follow_loading_and_conversion(owner: Owner, condition: Tensor) -> None:
    """Loading with assignment and changing the type reach the head through the embedding."""
    state = {name: value + 1.0 for name, value in owner.state_dict().items()}
    owner.load_state_dict(state, assign=True)
    expected = condition @ state["embedding.weight"].T + state["head.bias"]
    torch.testing.assert_close(owner.head.logits(condition).detach(), expected)
    owner.to(torch.bfloat16)
    assert owner.head.output_weight.dtype == torch.bfloat16
    assert owner.head.logits(condition).dtype == torch.float32


def test_untied_head_owns_its_matrix(condition: Tensor) -> None:
    """Without tying there is a weight of its own and the embedding plays no part."""
    head = SoftmaxHead(SPACE, WIDTH, SoftmaxOptions(tied_weights=False))
    assert set(head.state_dict()) == {"weight", "bias"}
    assert head.weight is not None
    torch.testing.assert_close(head.logits(condition), condition @ head.weight.T + head.bias)
    assert 0.0 < float(head.weight.detach().std()) < 0.04


def test_meta_device_and_reset(condition: Tensor) -> None:
    """A head laid out on the meta device becomes usable by `reset_parameters`."""
    with torch.device("meta"):
        head = SoftmaxHead(SPACE, WIDTH, SoftmaxOptions(tied_weights=False))
    head.to_empty(device="cpu").reset_parameters()
    assert float(head.bias.detach().abs().max()) == 0.0
    assert bool(torch.isfinite(head.logits(condition)).all())


@pytest.mark.parametrize("embedding", [None, nn.Linear(3, 4), nn.Identity(), nn.Embedding(VOCABULARY, WIDTH + 1)])
def test_weights_that_can_not_be_tied_are_refused(embedding: nn.Module | None) -> None:
    """The message names what was expected and the way out."""
    with pytest.raises(IncompatibleComponentsError, match=r"\(11, 6\).*tied_weights"):
        SoftmaxHead(SPACE, WIDTH, token_embedding=embedding)


def test_continuous_tokens_are_refused() -> None:
    """Building through the plugin for vectors is refused in one sentence."""
    space = ContinuousTokens(grid=Grid(height=2, width=2), channels=3)
    context = HeadContext(token_space=space, width=WIDTH, token_embedding=space.embedding(WIDTH))
    component = next(c for c in fluid_register_heads() if c.name == "softmax")
    with pytest.raises(IncompatibleComponentsError, match="predicts discrete tokens, found continuous"):
        component.build(SoftmaxOptions(), context)


@pytest.mark.parametrize(
    "target", [torch.tensor([0, 1, VOCABULARY]), torch.tensor([0, -1, 2]), torch.tensor([0.0, 1.0, 2.0])]
)
def test_targets_that_are_no_ids_are_refused(owner: Owner, condition: Tensor, target: Tensor) -> None:
    """Ids outside the vocabulary and other types."""
    with pytest.raises(InvalidTokensError):
        owner.head.loss(condition[:3], target, random=keys(3))


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, 1.5])
def test_label_smoothing_out_of_range_is_refused(smoothing: float) -> None:
    """It is a share of probability."""
    with pytest.raises(ValueError, match="label_smoothing"):
        SoftmaxOptions(label_smoothing=smoothing)
    with pytest.raises(TypeError, match="'label_smoothing' must be a finite number at least 0 and below 1, found 'x'"):
        SoftmaxOptions(label_smoothing="x")


def test_sampling_follows_the_distribution(owner: Owner) -> None:
    """Frequencies of many draws for one hidden vector match its probabilities at two temperatures."""
    num_draws = 40_000
    condition = 0.5 * torch.randn(1, WIDTH, generator=generator(5)).expand(num_draws, -1)
    sampler = owner.head.sampler(SamplerSettings())
    for temperature in (1.0, 0.5):
        tokens = sampler(condition, SamplingRequest(random=keys(num_draws), temperature=temperature))
        frequencies = torch.bincount(tokens, minlength=VOCABULARY) / num_draws
        expected = (owner.head.logits(condition[:1])[0] / temperature).softmax(dim=0).detach()
        # Four standard deviations of a frequency.
        assert bool(((frequencies - expected).abs() < 4 * (expected / num_draws).sqrt() + 1e-4).all())


def test_temperature_zero_takes_the_likeliest(owner: Owner, condition: Tensor) -> None:
    """No randomness is left."""
    sampler = owner.head.sampler(SamplerSettings(num_steps=1))
    tokens = sampler(condition, SamplingRequest(random=keys(5), temperature=0.0))
    assert torch.equal(tokens, owner.head.logits(condition).argmax(dim=1))


def test_guidance_extrapolates_logits(owner: Owner, condition: Tensor) -> None:
    """Scale 1 is no guidance, 0 is the negative, 3 moves on in the direction from one to the other."""
    sampler = owner.head.sampler(SamplerSettings())
    negative = torch.randn(5, WIDTH, generator=generator(9))

    def draw(scale: float | None, temperature: float = 1.0, vectors: Tensor = condition) -> Tensor:
        guidance = None if scale is None else Guidance(negative=negative, scale=torch.full((5,), scale))
        return sampler(vectors, SamplingRequest(random=keys(5), temperature=temperature, guidance=guidance))

    assert torch.equal(draw(1.0), draw(None))
    assert torch.equal(draw(0.0), draw(None, vectors=negative))
    unguided, away = owner.head.logits(condition), owner.head.logits(negative)
    assert torch.equal(draw(3.0, temperature=0.0), (away + 3.0 * (unguided - away)).argmax(dim=1))


def test_a_token_is_drawn_alike_alone_and_in_a_batch(owner: Owner, condition: Tensor) -> None:
    """Randomness belongs to the row."""
    sampler = owner.head.sampler(SamplerSettings())
    random = keys(5)
    together = sampler(condition, SamplingRequest(random=random))
    chosen = torch.tensor([3, 1])
    alone = sampler(condition[chosen], SamplingRequest(random=random.rows(chosen)))
    assert torch.equal(alone, together[chosen])


def test_zero_tokens(owner: Owner) -> None:
    """No tokens in, none out: in the loss and at any temperature."""
    nothing = torch.empty(0, WIDTH)
    for temperature in (0.0, 1.0):
        request = SamplingRequest(random=keys(0), temperature=temperature)
        tokens = owner.head.sampler(SamplerSettings())(nothing, request)
        assert tokens.shape == (0,)
        assert tokens.dtype == torch.int64
    assert owner.head.loss(nothing, torch.empty(0, dtype=torch.int64), random=keys(0)).total.shape == (0,)


def test_requests_without_meaning_are_refused(owner: Owner, condition: Tensor) -> None:
    """Steps, temperatures, widths and shapes that do not fit."""
    with pytest.raises(InvalidRequestError, match="one step, found num_steps=4"):
        owner.head.sampler(SamplerSettings(num_steps=4))
    sampler = owner.head.sampler(SamplerSettings())
    for temperature in (-1.0, math.nan, math.inf):
        with pytest.raises(InvalidRequestError, match="temperature of 0 or more"):
            sampler(condition, SamplingRequest(random=keys(5), temperature=temperature))
    with pytest.raises(InvalidRequestError, match="3 rows for 5 tokens"):
        sampler(condition, SamplingRequest(random=keys(3)))
    with pytest.raises(InvalidRequestError, match="width 6, found 7"):
        sampler(torch.zeros(5, 7), SamplingRequest(random=keys(5)))
    guidance = Guidance(negative=condition[:2], scale=torch.ones(2))
    with pytest.raises(InvalidRequestError, match="guidance with negative vectors"):
        sampler(condition, SamplingRequest(random=keys(5), guidance=guidance))


def test_float32_under_autocast(owner: Owner, condition: Tensor) -> None:
    """Autocast of the backbone changes neither loss nor samples."""
    target = torch.arange(5)
    plain = owner.head.loss(condition, target, random=keys(5)).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = owner.head.loss(condition, target, random=keys(5)).total
        logits = owner.head.logits(condition)
    assert under.dtype == logits.dtype == torch.float32
    assert torch.equal(under, plain)
