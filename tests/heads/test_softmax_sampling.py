"""Samplers of the softmax head: limits on the vocabulary, and the fused one against the reference."""

import math

import pytest
import torch
from torch import Tensor, nn
from transformers import TopKLogitsWarper, TopPLogitsWarper

from fluid_core.errors import InvalidRequestError, InvalidTokensError
from fluid_core.exchange import Guidance, SamplerBackend, SamplerSettings, SamplingRequest
from fluid_core.keyed_random import KeyedRandom
from fluid_core.token_space import DiscreteTokens, Grid
from fluid_heads.softmax import fused_sampler
from fluid_heads.softmax.gumbel import gumbel_
from fluid_heads.softmax.head import SoftmaxHead
from fluid_heads.softmax.limits import keep_likeliest, keep_nucleus
from fluid_heads.softmax.options import SoftmaxOptions

VOCABULARY, WIDTH = 300, 24
SPACE = DiscreteTokens(grid=Grid(height=2, width=2), vocabulary_size=VOCABULARY)


def generator(seed: int = 0) -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(seed)


def keys(count: int, seed: int = 0) -> KeyedRandom:
    """A random source with one row per token."""
    return KeyedRandom.from_generator(generator(seed), count)


def random_head(options: SoftmaxOptions | None = None, *, seed: int = 1) -> SoftmaxHead:
    """A head with a matrix of its own and logits of standard deviation 2."""
    head = SoftmaxHead(SPACE, WIDTH, options or SoftmaxOptions(tied_weights=False))
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(seed)))
        assert head.weight is not None
        head.weight.mul_(2.0 / math.sqrt(WIDTH))
    return head


def hidden(count: int, seed: int = 2) -> Tensor:
    """Hidden vectors."""
    return torch.randn(count, WIDTH, generator=generator(seed))


def draw(head: SoftmaxHead, condition: Tensor, *, backend: str = "auto", **request: object) -> Tensor:
    """Ids drawn with options and fields of the request, told apart by their names."""
    options = {name: request.pop(name) for name in ("top_k", "top_p") if name in request}
    sampler = head.sampler(SamplerSettings(backend=backend, options=options))
    return sampler(condition, SamplingRequest(random=keys(len(condition)), **request))


@pytest.mark.parametrize("k", [1, 2, 17, VOCABULARY - 1, VOCABULARY, VOCABULARY + 1, 10**9])
def test_top_k_is_that_of_transformers(k: int) -> None:
    """The same logits survive, for ties as well; more than the vocabulary is all of it."""
    logits = torch.randn(6, VOCABULARY, generator=generator(3))
    logits[4] = logits[4].round()
    logits[5] = 0.5
    assert torch.equal(keep_likeliest(logits, k), TopKLogitsWarper(k)(None, logits))


@pytest.mark.parametrize("p", [1e-6, 0.1, 0.5, 0.9, 0.999, 1.0])
def test_top_p_is_that_of_transformers(p: float) -> None:
    """The same logits survive: as few of the likeliest as reach the probability, and at least one."""
    logits = 3.0 * torch.randn(6, VOCABULARY, generator=generator(3))
    logits[5, 7] = 60.0
    kept = keep_nucleus(logits, p)
    assert torch.equal(kept, TopPLogitsWarper(p)(None, logits))
    for row, left in zip(logits.double().softmax(dim=1), kept > -torch.inf, strict=True):
        assert int(left.sum()) >= 1
        assert float(row[left].sum()) >= p - 1e-5
        # Without its least likely id the nucleus would not reach the probability.
        assert float(row[left].sum() - row[left].min()) <= p + 1e-5


def test_a_nucleus_cuts_between_equal_probabilities() -> None:
    """Ties do not bring back what is not needed: of 300 equal ids half make up a half."""
    left = keep_nucleus(torch.zeros(2, VOCABULARY), 0.5) > -torch.inf
    assert left.sum(dim=1).tolist() == [VOCABULARY // 2] * 2 or left.sum(dim=1).tolist() == [VOCABULARY // 2 + 1] * 2


def test_limited_samples_follow_the_limited_distribution() -> None:
    """Frequencies match guided logits that were tempered, cut to k, then to the nucleus, as transformers does it."""
    head, num_draws = random_head(), 20_000
    condition, negative = hidden(1).expand(num_draws, -1), hidden(1, seed=8).expand(num_draws, -1)
    guidance = Guidance(negative=negative, scale=torch.full((num_draws,), 1.5))
    ids = draw(head, condition, top_k=20, top_p=0.8, temperature=1.7, guidance=guidance)
    away, towards = head.logits(negative[:1]).detach(), head.logits(condition[:1]).detach()
    logits = (away + 1.5 * (towards - away)) / 1.7
    expected = TopPLogitsWarper(0.8)(None, TopKLogitsWarper(20)(None, logits))[0].softmax(dim=0)
    frequencies = torch.bincount(ids, minlength=VOCABULARY) / num_draws
    assert bool((frequencies[expected == 0.0] == 0.0).all())
    assert 1 < int((expected > 0.0).sum()) < 20
    # Four standard deviations of a frequency.
    assert bool(((frequencies - expected).abs() <= 4 * (expected / num_draws).sqrt()).all())


def test_temperature_decides_the_nucleus_but_not_the_likeliest() -> None:
    """Heat widens the nucleus of a probability; the k likeliest stay the same ones."""
    head, condition = random_head(), hidden(1).expand(4000, -1)
    num_ids = [len(draw(head, condition, top_p=0.6, temperature=one).unique()) for one in (0.3, 1.0, 3.0)]
    assert num_ids == sorted(set(num_ids))
    expected = set(head.logits(condition[:1])[0].topk(5).indices.tolist())
    for temperature in (0.8, 3.0):
        assert set(draw(head, condition, top_k=5, temperature=temperature).tolist()) <= expected


@pytest.mark.parametrize("limit", [{"top_k": 1}, {"top_p": 1e-9}, {"top_k": 5, "top_p": 1e-9}])
def test_the_tightest_limits_leave_the_likeliest(limit: dict[str, float]) -> None:
    """Also at a temperature that leaves nothing else, at zero, and at one so small that quotients overflow."""
    head, condition = random_head(), hidden(200)
    likeliest = head.logits(condition).argmax(dim=1)
    for temperature in (1.0, 5.0, 0.0, 1e-40):
        assert torch.equal(draw(head, condition, temperature=temperature, **limit), likeliest)


@pytest.mark.parametrize("limit", [{"top_k": VOCABULARY}, {"top_k": 10**6}, {"top_p": 1.0}, {"top_k": None}])
def test_limits_that_limit_nothing_change_nothing(limit: dict[str, float | None]) -> None:
    """The same ids as without, from the same random numbers."""
    head, condition = random_head(), hidden(200)
    plain = draw(head, condition, backend="reference")
    assert torch.equal(draw(head, condition, backend="reference", **limit), plain)


def test_options_of_the_head_hold_unless_a_generation_replaces_them() -> None:
    """`top_k` may be set when the head is built, changed for one generation, or taken back."""
    head, condition = random_head(SoftmaxOptions(tied_weights=False, top_k=1)), hidden(100)
    free = random_head()
    assert head.sampling_options == {"top_k", "top_p"}
    assert torch.equal(draw(head, condition), head.logits(condition).argmax(dim=1))
    assert torch.equal(draw(head, condition, top_k=None), draw(free, condition))
    assert torch.equal(draw(head, condition, top_k=9), draw(free, condition, top_k=9))
    assert head.options.top_k == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "'top_k' must be a whole number at least 1, found 0"),
        ({"top_k": -3}, "'top_k' must be a whole number at least 1, found -3"),
        ({"top_k": 2.5}, "'top_k' must be a whole number at least 1, found 2.5"),
        ({"top_k": True}, "'top_k' must be a whole number at least 1, found True"),
        ({"top_p": 0.0}, "'top_p' must be a finite number above 0 and at most 1, found 0.0"),
        ({"top_p": 1.01}, "'top_p' must be a finite number above 0 and at most 1, found 1.01"),
        ({"top_p": -0.5}, "'top_p' must be .* found -0.5"),
        ({"top_p": math.nan}, "'top_p' must be .* found nan"),
        ({"top_p": "0.9"}, "'top_p' must be .* found '0.9'"),
    ],
)
def test_limits_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    """When the head is built, and for one generation."""
    with pytest.raises((TypeError, ValueError), match=message):
        SoftmaxOptions(**options)
    with pytest.raises(InvalidRequestError, match=message):
        random_head().sampler(SamplerSettings(options=options))


def test_other_options_can_not_be_changed_when_sampling() -> None:
    """What is a matter of training stays as it is."""
    for name in ("label_smoothing", "tied_weights"):
        with pytest.raises(InvalidRequestError, match=f"'{name}' can not be changed when sampling"):
            random_head().sampler(SamplerSettings(options={name: 0.1}))


def test_what_runs_is_reported() -> None:
    """Fused without limits, the reference with them or when asked for; fused with limits is refused."""
    head = random_head()
    assert head.sampler(SamplerSettings()).backend is SamplerBackend.FUSED
    assert head.sampler(SamplerSettings(backend="fused")).backend is SamplerBackend.FUSED
    assert head.sampler(SamplerSettings(backend="reference")).backend is SamplerBackend.REFERENCE
    for limit in ({"top_k": 5}, {"top_p": 0.5}, {"top_k": VOCABULARY}):
        assert head.sampler(SamplerSettings(options=limit)).backend is SamplerBackend.REFERENCE
        with pytest.raises(InvalidRequestError, match=r"whole vocabulary.*'auto' or 'reference'"):
            head.sampler(SamplerSettings(backend="fused", options=limit))
    for steps in (0, 2, -1):
        for backend in SamplerBackend:
            with pytest.raises(InvalidRequestError, match=f"one step, found num_steps={steps}"):
                head.sampler(SamplerSettings(num_steps=steps, backend=backend))


@pytest.mark.parametrize("num_tokens", [0, 1, 2, 7, 64])
@pytest.mark.parametrize("temperature", [0.0, 1e-30, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("guided", [False, True])
def test_fused_draws_the_ids_of_the_reference(
    num_tokens: int, temperature: float, guided: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For pieces of noise and logits that do not divide the number of tokens, and with both in one piece."""
    head, condition = random_head(), hidden(num_tokens)
    scale = torch.linspace(0.0, 6.0, num_tokens)
    guidance = Guidance(negative=hidden(num_tokens, seed=9), scale=scale) if guided else None
    expected = draw(head, condition, backend="reference", temperature=temperature, guidance=guidance)
    for noise, logits in ((2**18, 2**22), (3 * VOCABULARY, 6 * VOCABULARY), (1, 1)):
        monkeypatch.setattr(fused_sampler, "_NOISE_AT_A_TIME", noise)
        monkeypatch.setattr(fused_sampler, "_LOGITS_AT_A_TIME", logits)
        found = draw(head, condition, backend="fused", temperature=temperature, guidance=guidance)
        assert found.dtype == torch.int64
        assert torch.equal(found, expected)


def test_fused_multiplies_by_the_vocabulary_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under guidance the reference takes two products of all tokens, the fused sampler one."""
    head, rows = random_head(), []
    linear = nn.functional.linear

    def counting(vectors: Tensor, *weights: Tensor) -> Tensor:
        rows.append(len(vectors))
        return linear(vectors, *weights)

    monkeypatch.setattr(nn.functional, "linear", counting)
    guidance = Guidance(negative=hidden(10, seed=9), scale=torch.full((10,), 3.0))
    counts = {}
    for backend in ("reference", "fused"):
        rows.clear()
        draw(head, hidden(10), backend=backend, guidance=guidance)
        counts[backend] = sum(rows)
    assert counts == {"reference": 20, "fused": 10}


def test_fused_guidance_is_exact_where_it_mixes_nothing() -> None:
    """Scale 1 draws bit for bit what no guidance draws, scale 0 what the negative draws."""
    head, condition, negative = random_head(), hidden(300), 1e3 * hidden(300, seed=9)
    for scale, same in ((1.0, condition), (0.0, negative)):
        guidance = Guidance(negative=negative, scale=torch.full((300,), scale))
        assert torch.equal(draw(head, condition, guidance=guidance), draw(head, same))


def test_both_take_one_draw_of_the_random_numbers() -> None:
    """After sampling, and for a source that has been drawn from before, the stream goes on at the same place."""
    head, condition, after, ids = random_head(), hidden(40), [], []
    for backend in ("reference", "fused"):
        random = keys(40)
        random.normal((3,))
        ids.append(head.sampler(SamplerSettings(backend=backend))(condition, SamplingRequest(random=random)))
        after.append(random.uniform((2,)))
    assert torch.equal(ids[0], ids[1])
    assert torch.equal(after[0], after[1])
    assert not torch.equal(ids[0], draw(head, condition))


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_autocast_and_half_precision_weights(backend: str) -> None:
    """Samples are drawn in float32 whatever surrounds the head; bf16 weights are widened, not the result narrowed."""
    head, condition = random_head(), hidden(50)
    plain = draw(head, condition, backend=backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(draw(head, condition, backend=backend), plain)
    half, wide = random_head().to(torch.bfloat16), random_head().to(torch.bfloat16).float()
    assert torch.equal(draw(half, condition.bfloat16(), backend=backend), draw(wide, condition.bfloat16()))


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_tied_weights_are_sampled_from(backend: str) -> None:
    """Both samplers read the embedding that the head is tied to."""
    embedding = SPACE.embedding(WIDTH)
    with torch.no_grad():
        for parameter in embedding.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(4)))
    head = SoftmaxHead(SPACE, WIDTH, token_embedding=embedding)
    expected = (hidden(20) @ embedding.weight.T).argmax(dim=1)
    assert torch.equal(draw(head, hidden(20), backend=backend, temperature=0.0), expected)


@pytest.mark.parametrize("backend", ["reference", "fused"])
def test_requests_that_do_not_fit_are_refused(backend: str) -> None:
    """Temperatures, rows of randomness, widths, and guidance whose vectors do not match."""
    head, condition = random_head(), hidden(5)
    sampler = head.sampler(SamplerSettings(backend=backend))
    for temperature in (-1.0, math.nan, math.inf):
        with pytest.raises(InvalidRequestError, match="temperature of 0 or more"):
            sampler(condition, SamplingRequest(random=keys(5), temperature=temperature))
    with pytest.raises(InvalidRequestError, match="3 rows for 5 tokens"):
        sampler(condition, SamplingRequest(random=keys(3)))
    with pytest.raises(InvalidRequestError, match="width 24, found 25"):
        sampler(torch.zeros(5, 25), SamplingRequest(random=keys(5)))
    for guidance in (
        Guidance(negative=condition[:2], scale=torch.ones(2)),
        Guidance(negative=torch.zeros(5, 3), scale=torch.ones(5)),
    ):
        with pytest.raises(InvalidRequestError, match="guidance with negative vectors"):
            sampler(condition, SamplingRequest(random=keys(5), guidance=guidance))
    for wrong in (math.nan, math.inf):
        broken = condition.clone()
        broken[1, 2] = wrong
        with pytest.raises(InvalidRequestError, match="finite hidden vectors, found 1 of 5"):
            sampler(broken, SamplingRequest(random=keys(5)))


def test_ids_outside_the_vocabulary_are_refused_in_the_loss() -> None:
    """The first id that is none, on either side."""
    for wrong in (VOCABULARY, -1):
        with pytest.raises(InvalidTokensError):
            random_head().loss(hidden(2), torch.tensor([0, wrong]), random=keys(2))


def test_gumbel_noise_is_finite_and_distributed_as_it_should() -> None:
    """Also for the smallest and largest numbers a source gives; the mean is Euler's constant."""
    ends = gumbel_(torch.tensor([0.0, 2.0**-24, 1.0 - 2.0**-24]))
    torch.testing.assert_close(
        ends, torch.tensor([-math.log(25 * math.log(2)), -math.log(24 * math.log(2)), 24 * math.log(2)])
    )
    noise = gumbel_(keys(1).uniform((100_000,)))
    assert abs(float(noise.mean()) - 0.5772) < 4 * math.pi / math.sqrt(6 * 100_000)


def test_an_id_of_probability_one_never_loses() -> None:
    """Not even to a uniform number of 0, whose noise would be minus infinity."""

    class Zeros(KeyedRandom):
        def uniform(self, shape: tuple[int, ...] = ()) -> Tensor:
            return torch.zeros(self.num_rows, *shape)

    head = random_head()
    with torch.no_grad():
        head.bias[7] = 1e4
    sampler = head.sampler(SamplerSettings(backend="reference", options={"top_k": 3}))
    assert sampler(hidden(4), SamplingRequest(random=Zeros(torch.arange(4)))).tolist() == [7] * 4


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize("scale", [None, 0.0, 1.0, 4.0])
@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_confidence_is_the_log_probability_of_the_drawn_id(
    backend: str, scale: float | None, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the guided distribution over the whole vocabulary at temperature 1, in float64 by hand; the ids are those of a
    call without confidence, also where noise and logits are made in pieces.
    """
    monkeypatch.setattr(fused_sampler, "_NOISE_AT_A_TIME", 7 * VOCABULARY)
    monkeypatch.setattr(fused_sampler, "_LOGITS_AT_A_TIME", 14 * VOCABULARY)
    head, condition, negative = random_head(), hidden(40), hidden(40, seed=9)
    guidance = None if scale is None else Guidance(negative=negative, scale=torch.full((40,), scale))
    request = {"temperature": temperature, "guidance": guidance}
    sampler = head.confident_sampler(SamplerSettings(backend=backend))
    assert sampler.backend == backend
    ids, confidence = sampler.with_confidence(condition, SamplingRequest(random=keys(40), **request))
    assert torch.equal(ids, draw(head, condition, backend=backend, **request))
    mixed = condition if scale is None else negative + scale * (condition - negative)
    logits = mixed.double() @ head.weight.double().T + head.bias.double()
    expected = logits.log_softmax(dim=1)[torch.arange(40), ids]
    torch.testing.assert_close(confidence.double(), expected, atol=1e-4, rtol=1e-4)
    assert bool((confidence <= 1e-4).all())


def test_confidence_does_not_see_limits_on_the_vocabulary() -> None:
    """With `top_k` the reference draws, and tells the probability among all ids."""
    head, condition = random_head(), hidden(20)
    sampler = head.confident_sampler(SamplerSettings(options={"top_k": 2}))
    assert sampler.backend is SamplerBackend.REFERENCE
    ids, confidence = sampler.with_confidence(condition, SamplingRequest(random=keys(20)))
    assert torch.equal(ids, draw(head, condition, top_k=2))
    expected = head.logits(condition).log_softmax(dim=1)[torch.arange(20), ids]
    torch.testing.assert_close(confidence, expected)
    with pytest.raises(InvalidRequestError, match=r"whole vocabulary.*'auto' or 'reference'"):
        head.confident_sampler(SamplerSettings(backend="fused", options={"top_k": 2}))


def test_confidence_where_the_kernels_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CUDA device the reference tells it, and asking for the fused sampler says why not."""
    monkeypatch.setattr("fluid_heads.softmax.head.uses_kernels", lambda device: True)
    head = random_head()
    assert head.confident_sampler(SamplerSettings()).backend is SamplerBackend.REFERENCE
    with pytest.raises(InvalidRequestError, match="can not tell its confidence on this device"):
        head.confident_sampler(SamplerSettings(backend="fused"))


def test_confidence_for_no_tokens_and_wrong_requests() -> None:
    """An empty call is answered empty; a number of steps is refused as without confidence."""
    head = random_head()
    for backend in ("reference", "fused"):
        sampler = head.confident_sampler(SamplerSettings(backend=backend))
        ids, confidence = sampler.with_confidence(hidden(0), SamplingRequest(random=keys(0)))
        assert ids.shape == confidence.shape == (0,)
    with pytest.raises(InvalidRequestError, match="num_steps=3"):
        head.confident_sampler(SamplerSettings(num_steps=3))
