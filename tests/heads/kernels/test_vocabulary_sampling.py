"""Drawing ids without writing logits, against logits and the noise of `KeyedRandom`."""

import pytest
import torch

from fluid_core.errors import InvalidRequestError
from fluid_core.exchange import SamplerBackend, SamplerSettings, SamplingRequest
from fluid_core.token_space import DiscreteTokens, Grid
from fluid_heads.kernels import vocabulary_sampling
from fluid_heads.kernels.vocabulary_sampling import VocabularyTiling, draw_from_vocabulary
from fluid_heads.softmax.gumbel import gumbel_
from fluid_heads.softmax.head import SoftmaxHead
from fluid_heads.softmax.options import SoftmaxOptions

SHAPES = [(1, 1, 3), (1, 200, 24), (3, 97, 70), (19, 301, 33), (70, 131, 16)]


def sums(condition, weight, bias, random, temperature, guidance):
    """What the reference takes the largest of, in float64 up to the noise."""
    logits = condition.double() @ weight.double().T + bias.double()
    if guidance is not None:
        negative = guidance.negative.double() @ weight.double().T + bias.double()
        logits = negative + guidance.scale.double()[:, None] * (logits - negative)
    if temperature == 0.0:
        return logits
    return logits + temperature * gumbel_(random.uniform((weight.shape[0],))).double()


def assert_largest(ids, values, tolerance):
    """Every id has the largest value, or one within `tolerance` of it."""
    assert ids.dtype == torch.int64
    assert int(ids.min()) >= 0
    assert int(ids.max()) < values.shape[1]
    short = values.max(dim=1).values - values.gather(1, ids[:, None])[:, 0]
    assert float(short.max()) <= tolerance


@pytest.mark.parametrize(("tokens", "vocabulary", "width"), SHAPES)
@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.5, 0.0])
def test_ids_are_those_of_the_largest_sums(generator, keys, guide, tokens, vocabulary, width, guided, temperature):
    """Same ids as from float64 logits and the same noise; where two sums are within 1e-5, either of them."""
    condition = torch.randn(tokens, width, generator=generator)
    weight = torch.randn(vocabulary, width, generator=generator) / width**0.5
    bias = torch.randn(vocabulary, generator=generator)
    guidance = guide(condition) if guided else None
    random = keys(tokens)
    ids = draw_from_vocabulary(condition, weight, bias, random=random, temperature=temperature, guidance=guidance)
    reference = keys(tokens)
    values = sums(condition, weight, bias, reference, temperature, guidance)
    assert_largest(ids, values, 1e-5)
    # Whoever draws next gets the same numbers after both.
    assert torch.equal(random.uniform((3,)), reference.uniform((3,)))


def test_noise_matters_and_belongs_to_rows(generator, keys):
    """Ids differ between rows with one hidden vector, and a row alone draws what it draws among others."""
    condition = torch.randn(1, 8, generator=generator).repeat(24, 1)
    weight, bias = 0.1 * torch.randn(50, 8, generator=generator), torch.zeros(50)
    ids = draw_from_vocabulary(condition, weight, bias, random=keys(24))
    assert len(set(ids.tolist())) > 8
    alone = draw_from_vocabulary(condition[:1], weight, bias, random=keys(24).rows(torch.tensor([17])))
    assert int(alone[0]) == int(ids[17])


def test_half_precision_weights_cost_no_exactness(generator, keys, guide):
    """The product is that of the weights' exact values, with hidden vectors of twice the weights' digits.

    In float16: the interpreter can not multiply bfloat16, for which the code is the same.
    """
    condition = torch.randn(5, 70, generator=generator)
    weight = (torch.randn(203, 70, generator=generator) / 70**0.5).half()
    bias, guidance = torch.randn(203, generator=generator), guide(condition)
    ids = draw_from_vocabulary(condition, weight, bias, random=keys(5), guidance=guidance)
    assert_largest(ids, sums(condition, weight, bias, keys(5), 1.0, guidance), 1e-4)


def test_ties_go_to_the_smallest_id(keys):
    """Where several ids are likeliest, temperature 0 takes the first, in whichever quarter of the vocabulary."""
    weight, bias = torch.zeros(101, 4), torch.zeros(101)
    bias[[7, 33, 60, 90]] = 2.0
    for left, expected in (([7, 33, 60, 90], 7), ([33, 60, 90], 33), ([60, 90], 60)):
        bias.zero_()
        bias[left] = 2.0
        ids = draw_from_vocabulary(torch.ones(2, 4), weight, bias, random=keys(2), temperature=0.0)
        assert ids.tolist() == [expected, expected]


@pytest.mark.parametrize("num_splits", [1, 3, 40])
def test_the_split_changes_nothing(monkeypatch, generator, keys, num_splits):
    """One program for the whole vocabulary or many of them: the same ids, even where some programs get nothing."""
    condition, weight = torch.randn(3, 16, generator=generator), torch.randn(151, 16, generator=generator)
    bias = torch.zeros(151)
    expected = draw_from_vocabulary(condition, weight, bias, random=keys(3))
    blocks = {"block_tokens": 16, "block_ids": 16, "block_width": 16}
    tiling = VocabularyTiling(**blocks, num_warps=4, num_stages=2, num_splits=num_splits)

    class Fixed(VocabularyTiling):
        @classmethod
        def choose(cls, num_tokens, vocabulary):
            return tiling

    monkeypatch.setattr(vocabulary_sampling, "VocabularyTiling", Fixed)
    assert torch.equal(draw_from_vocabulary(condition, weight, bias, random=keys(3)), expected)


def test_what_is_no_number_gives_an_id_of_the_vocabulary(keys):
    """Hidden vectors that are not finite can not lead outside the codebook."""
    condition = torch.full((2, 4), float("nan"))
    ids = draw_from_vocabulary(condition, torch.ones(21, 4), torch.zeros(21), random=keys(2))
    assert ((ids >= 0) & (ids < 21)).all()


def test_nothing_to_do(keys):
    """No hidden vectors give no ids."""
    ids = draw_from_vocabulary(torch.zeros(0, 4), torch.zeros(8, 4), torch.zeros(8), random=keys(0))
    assert ids.shape == (0,)


def test_what_does_not_fit_is_refused(monkeypatch, keys, guide):
    """A matrix that is too large, rows of random numbers that are missing, and a negative temperature are named."""
    condition, weight, bias = torch.zeros(3, 4), torch.zeros(8, 4), torch.zeros(8)
    monkeypatch.setattr(vocabulary_sampling, "LARGEST_MATRIX", 20)
    with pytest.raises(InvalidRequestError, match="fewer tokens"):
        draw_from_vocabulary(condition, weight, bias, random=keys(3))
    monkeypatch.undo()
    with pytest.raises(InvalidRequestError, match="3 rows"):
        draw_from_vocabulary(condition, weight, bias, random=keys(2))
    with pytest.raises(InvalidRequestError, match="temperature"):
        draw_from_vocabulary(condition, weight, bias, random=keys(3), temperature=-1.0)
    with pytest.raises(InvalidRequestError, match="one scale per token"):
        draw_from_vocabulary(condition, weight, bias, random=keys(3), guidance=guide(condition[:2]))


def test_the_head_takes_the_kernel_where_it_runs(keys, generator, guide, monkeypatch):
    """Where the kernels serve a device, the fused sampler is the kernel and draws the reference's ids."""
    monkeypatch.setattr("fluid_heads.softmax.head.uses_kernels", lambda _device: True)
    space = DiscreteTokens(grid=Grid(height=2, width=2), vocabulary_size=37)
    head = SoftmaxHead(space, 12, SoftmaxOptions(tied_weights=False))
    condition = 3.0 * torch.randn(5, 12, generator=generator)
    guidance = guide(condition)
    ids = {}
    for backend in ("reference", "fused"):
        sampler = head.sampler(SamplerSettings(backend=backend))
        assert sampler.backend is SamplerBackend(backend)
        ids[backend] = sampler(condition, SamplingRequest(random=keys(5), guidance=guidance))
    assert torch.equal(ids["fused"], ids["reference"])
