"""The transformer: who sees whom, with and without a cache, and what the text does."""

import pytest
import torch

from fluid_core.backbone.sizes import BackboneShape
from fluid_core.backbone.transformer import Transformer
from fluid_core.exchange import TextFeatures
from fluid_core.text.text_aligner import TextAligner

SHAPE = BackboneShape(width=32, depth=3, num_heads=4, aligner_depth=2)
LENGTH = 10


@pytest.fixture
def transformer():
    """A transformer with fixed random weights."""
    torch.manual_seed(1)
    return Transformer(SHAPE).eval()


@pytest.fixture
def rows():
    """Rows of two sequences."""
    return torch.randn(2, LENGTH, SHAPE.width, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def text(transformer):
    """Text of two prompts, the second shorter."""
    states = torch.randn(2, 5, SHAPE.width, generator=torch.Generator().manual_seed(3))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    return transformer.text(states, mask)


def test_causal_rows_do_not_depend_on_later_rows(transformer, rows, text):
    """Changing row 6 leaves rows 0 to 5 bit-equal and changes all from 6 on."""
    changed = rows.clone()
    changed[:, 6] = 100.0
    before, after = transformer(rows, text, causal=True), transformer(changed, text, causal=True)
    assert torch.equal(before[:, :6], after[:, :6])
    assert (before[:, 6:] - after[:, 6:]).abs().amax(dim=2).min() > 1e-3


def test_bidirectional_rows_see_every_row(transformer, rows, text):
    """Changing any row changes every row of the same sequence, and none of the other sequence."""
    before = transformer(rows, text, causal=False)
    for index in range(LENGTH):
        changed = rows.clone()
        changed[0, index] *= -1.0
        after = transformer(changed, text, causal=False)
        assert (before[0] - after[0]).abs().amax(dim=1).min() > 1e-5
        assert torch.equal(before[1], after[1])


@pytest.mark.parametrize("chunks", [[1] * LENGTH, [4, 1, 3, 2], [LENGTH]])
def test_a_cached_sequence_equals_the_causal_pass(transformer, rows, text, chunks):
    """Rows that enter one by one, in chunks of any size or at once, end where the causal pass over them ends."""
    caches = transformer.caches(2, LENGTH)
    parts = [transformer.advance(part, text, caches, num_questions=1) for part in rows.split(chunks, dim=1)]
    ends = torch.tensor(chunks).cumsum(0) - 1
    expected = transformer(rows, text, causal=True)[:, ends]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, atol=1e-5, rtol=1e-5)
    assert all(cache.length == LENGTH for cache in caches)


@pytest.mark.parametrize("num_cached", [0, 1, 4])
@pytest.mark.parametrize("num_new", [0, 2])
def test_each_question_equals_the_pass_with_it_alone(transformer, rows, text, num_cached, num_new):
    """Several candidates for the next row do not see each other, and each gets what it would get as the next row."""
    caches = transformer.caches(2, LENGTH)
    if num_cached:
        transformer.advance(rows[:, :num_cached], text, caches, num_questions=1)
    before = rows[:, : num_cached + num_new]
    candidates = torch.randn(2, 4, SHAPE.width, generator=torch.Generator().manual_seed(4))
    entering = torch.cat([before[:, num_cached:], candidates], dim=1)
    together = transformer.advance(entering, text, caches, num_questions=4)
    for index in range(4):
        alone = torch.cat([before, candidates[:, index : index + 1]], dim=1)
        expected = transformer(alone, text, causal=True)[:, -1]
        torch.testing.assert_close(together[:, index], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stays", [True, False])
def test_the_first_question_stays_unless_it_is_forgotten(transformer, rows, text, stays):
    """What follows sees the first question, and the others never; forgotten, none of them."""
    caches = transformer.caches(2, LENGTH)
    transformer.advance(rows[:, :5], text, caches, num_questions=3)
    assert [cache.length for cache in caches] == [3] * SHAPE.depth
    if not stays:
        for cache in caches:
            cache.forget_last()
    found = transformer.advance(rows[:, 5:], text, caches, num_questions=1)
    seen = torch.cat([rows[:, : 3 if stays else 2], rows[:, 5:]], dim=1)
    expected = transformer(seen, text, causal=True)[:, -1:]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_full_cache_refuses_another_row(transformer, rows, text):
    """The capacity is a promise: a row beyond it is an error of ours, not a silent overwrite."""
    caches = transformer.caches(2, 3)
    transformer.advance(rows[:, :3], text, caches, num_questions=1)
    with pytest.raises(AssertionError, match="cache of 3 rows"):
        transformer.advance(rows[:, 3:4], text, caches, num_questions=1)


@pytest.mark.parametrize("depth", [1, 3])
def test_some_rows_of_a_canvas_are_those_of_the_whole(rows, depth):
    """Asked about some positions, other ones for each image, the transformer gives what the whole pass gives there."""
    torch.manual_seed(1)
    transformer = Transformer(BackboneShape(width=32, depth=depth, num_heads=4)).eval()
    text = transformer.text(torch.randn(2, 5, 32), torch.ones(2, 5, dtype=torch.bool))
    positions = torch.tensor([[7, 0, 3], [2, 9, 1]])
    whole = transformer(rows, text, causal=False)
    expected = torch.stack([whole[index, positions[index]] for index in range(2)])
    torch.testing.assert_close(transformer.at(rows, text, positions), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("depth", [1, 3])
def test_chosen_rows_are_those_of_the_whole_and_cost_less(rows, depth):
    """Any number of rows of each canvas: hidden vectors and gradients of the whole pass, for less work."""
    # Loads Triton, before which the tests of kernels ask for its interpreter.
    from torch.utils.flop_counter import FlopCounterMode

    torch.manual_seed(1)
    transformer = Transformer(BackboneShape(width=32, depth=depth, num_heads=4))
    states, mask = torch.randn(2, 5, 32), torch.tensor([[True] * 5, [True] * 2 + [False] * 3])
    numbers = torch.tensor([1, 4, 5, 8, LENGTH + 7])
    ways = {
        "whole": lambda: transformer(rows, transformer.text(states, mask), causal=False).flatten(0, 1)[numbers],
        "chosen": lambda: transformer(rows, transformer.text(states, mask), causal=False, numbers=numbers),
    }
    hidden, gradients, flops = {}, {}, {}
    for name, way in ways.items():
        with FlopCounterMode(display=False) as counter:
            hidden[name] = way()
        flops[name] = counter.get_total_flops()
        gradients[name] = torch.autograd.grad(hidden[name].square().sum(), list(transformer.parameters()))
    torch.testing.assert_close(hidden["chosen"], hidden["whole"], atol=1e-5, rtol=1e-5)
    for chosen, whole in zip(gradients["chosen"], gradients["whole"], strict=True):
        torch.testing.assert_close(chosen, whole, atol=1e-4, rtol=1e-4)
    # Per row not chosen: both outputs and the queries to the text, and the two layers of the MLP.
    saved = 2 * (2 * LENGTH - len(numbers)) * (3 + 2 * 4) * 32 * 32
    assert flops["whole"] - flops["chosen"] == saved


@pytest.mark.parametrize("depth", [1, 3])
def test_two_texts_for_every_image_share_what_comes_before_them(rows, depth):
    """With twice as many texts as images, both halves come out as if every image had been given twice."""
    torch.manual_seed(1)
    transformer = Transformer(BackboneShape(width=32, depth=depth, num_heads=4)).eval()
    text = transformer.text(torch.randn(4, 5, 32), torch.ones(4, 5, dtype=torch.bool))
    twice = torch.cat([rows, rows])
    positions = torch.tensor([[7, 0, 3], [2, 9, 1]])
    expected = transformer.at(twice, text, torch.cat([positions, positions]))
    torch.testing.assert_close(transformer.at(rows, text, positions), expected, atol=1e-5, rtol=1e-5)
    shared, apart = transformer.caches(2, LENGTH, texts_per_row=2), transformer.caches(4, LENGTH)
    for first, last in ((0, 3), (3, 8)):
        found = transformer.advance(rows[:, first:last], text, shared, num_questions=2)
        expected = transformer.advance(twice[:, first:last], text, apart, num_questions=2)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_text_padding_is_invisible(transformer, rows):
    """Padding after the text, whatever it holds, changes neither the aligned text nor the hidden vectors."""
    torch.manual_seed(0)
    aligner = TextAligner(12, SHAPE)
    states = torch.randn(2, 4, 12)
    short = aligner(TextFeatures(states=states, mask=torch.ones(2, 4, dtype=torch.bool)))
    padding = torch.full((2, 3, 12), 1e4)
    padding[:, 1] = torch.randn(2, 12)
    mask = torch.arange(7).expand(2, 7) < 4
    long = aligner(TextFeatures(states=torch.cat([states, padding], dim=1), mask=mask))
    torch.testing.assert_close(long.states[:, :4], short.states, atol=1e-5, rtol=1e-5)
    hidden = [transformer(rows, transformer.text(part.states, part.mask), causal=False) for part in (short, long)]
    torch.testing.assert_close(hidden[0], hidden[1], atol=1e-5, rtol=1e-5)


def test_the_text_matters(transformer, rows):
    """Other text states give other hidden vectors in every row."""
    mask = torch.ones(2, 4, dtype=torch.bool)
    one, other = (transformer.text(torch.randn(2, 4, SHAPE.width), mask) for _ in range(2))
    difference = transformer(rows, one, causal=False) - transformer(rows, other, causal=False)
    assert difference.abs().amax(dim=2).min() > 1e-3


def test_dropped_text_is_the_unconditional_text(transformer, rows):
    """A dropped caption conditions like `unconditional`, whatever it said; the others keep their text."""
    torch.manual_seed(0)
    aligner = TextAligner(12, SHAPE)
    features = TextFeatures(states=torch.randn(2, 6, 12), mask=torch.tensor([[True] * 6, [True] * 2 + [False] * 4]))
    dropped = aligner(features, torch.tensor([True, False]))
    kept, nothing = aligner(features), aligner.unconditional(2)

    def hidden(part):
        return transformer(rows, transformer.text(part.states, part.mask), causal=False)

    torch.testing.assert_close(hidden(dropped)[0], hidden(nothing)[0], atol=1e-6, rtol=1e-5)
    assert torch.equal(hidden(dropped)[1], hidden(kept)[1])
    assert (hidden(dropped)[0] - hidden(kept)[0]).abs().max() > 1e-2


def test_gradients_reach_every_parameter(transformer, rows):
    """A loss on the hidden vectors moves every weight of transformer and aligner, by a finite amount."""
    torch.manual_seed(0)
    aligner = TextAligner(12, SHAPE)
    features = TextFeatures(states=torch.randn(2, 6, 12), mask=torch.ones(2, 6, dtype=torch.bool))
    aligned = aligner(features, torch.tensor([False, True]))
    weights = torch.randn(2, LENGTH, SHAPE.width)
    hidden = transformer(rows, transformer.text(aligned.states, aligned.mask), causal=True)
    (hidden * weights).sum().backward()
    for module in (transformer, aligner):
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
            assert float(parameter.grad.abs().max()) > 0, name


def test_dropout_acts_in_training_only(rows):
    """With dropout two training passes differ, and two evaluation passes are equal."""
    torch.manual_seed(0)
    transformer = Transformer(BackboneShape(width=32, depth=2, num_heads=4, dropout=0.5))
    text = transformer.text(torch.randn(2, 3, 32), torch.ones(2, 3, dtype=torch.bool))
    assert not torch.equal(transformer(rows, text, causal=True), transformer(rows, text, causal=True))
    transformer.eval()
    assert torch.equal(transformer(rows, text, causal=True), transformer(rows, text, causal=True))


def test_fresh_hidden_vectors_have_unit_scale_at_any_depth(rows):
    """The initial weights neither blow up nor fade the signal: the residual stream stays within a factor of three."""
    for depth in (2, 24):
        torch.manual_seed(0)
        transformer = Transformer(BackboneShape(width=32, depth=depth, num_heads=4))
        stream = {}
        transformer.output_norm.register_forward_pre_hook(lambda _, args, to=stream: to.update(x=args[0]))
        transformer(rows, transformer.text(torch.randn(2, 3, 32), torch.ones(2, 3, dtype=torch.bool)), causal=False)
        assert 0.5 < float(stream["x"].detach().std()) < 3.0
