"""`FluidModel`: the training loss, its randomness, its weights, and the parts it refuses."""

import copy
import inspect

import attrs
import pytest
import torch
from torch import nn

from fluid_core import AttentionPattern, ContinuousTokens, FluidModel, Grid, KeyedRandom
from fluid_core.configuration import ComponentChoice
from fluid_core.errors import IncompatibleComponentsError, InvalidComponentError, InvalidRequestError, PromptError
from fluid_core.exchange import TokenLoss, TrainingView
from fluid_core.model import TrainingBatch
from fluid_core.text.t5_encoder import example_t5_options
from fluid_core.training.step.moving_average import MovingAverage

COMBINATIONS = [("continuous", "random"), ("continuous", "raster"), ("discrete", "random"), ("discrete", "raster")]


def generator(seed=0):
    """A generator on the CPU."""
    return torch.Generator().manual_seed(seed)


def keys_of(batch, positions):
    """Randomness of tokens, as the head gets it: by image, then by position."""
    labels = torch.arange(batch.tokens.shape[1]).expand(len(batch.tokens), -1)
    return batch.random.children(labels).rows(positions)


def only(batch, index):
    """The same randomness and content for one image of a batch."""
    return TrainingBatch(
        tokens=batch.tokens[index],
        text=attrs.evolve(batch.text, states=batch.text.states[index], mask=batch.text.mask[index]),
        dropped=batch.dropped[index],
        view=TrainingView(order=batch.view.order[index], num_known=batch.view.num_known[index]),
        random=batch.random.rows(index),
    )


@pytest.mark.parametrize("tokens", ["continuous", "discrete"])
def test_bidirectional_loss_is_that_of_the_predicted_tokens(small_model, images, captions, tokens):
    """The loss is the head's, at exactly the positions after the cut, from hidden vectors that see those before it."""
    model = small_model(tokens, "random").eval()
    batch = model.prepare(images, captions, generator=generator(3))
    loss = model(batch)

    text = model.aligner(batch.text, batch.dropped)
    known = torch.zeros(4, 9, dtype=torch.bool)
    for image in range(4):
        known[image, batch.view.order[image, : batch.view.num_known[image]]] = True
    rows = model.token_embedding.canvas(batch.tokens, known)
    hidden = model.transformer(rows, model.transformer.text(text.states, text.mask), causal=False)
    positions = (~known).flatten().nonzero().squeeze(1)
    expected = model.head.loss(hidden[~known], batch.tokens[~known], random=keys_of(batch, positions))
    torch.testing.assert_close(loss.total, expected.total.sum())
    torch.testing.assert_close(loss.mean, expected.total.mean())
    assert loss.num_tokens == int((9 - batch.view.num_known).sum()) < 64
    assert loss.parts.keys() == expected.parts.keys()
    for name, part in loss.parts.items():
        torch.testing.assert_close(part, expected.parts[name].sum())
        assert not part.requires_grad


@pytest.mark.parametrize("tokens", ["continuous", "discrete"])
def test_causal_loss_is_that_of_all_tokens(small_model, images, captions, tokens, shuffled_causal_order):
    """Row i of the sequence predicts the token at order[i]; every token enters once, with its own random numbers."""
    model = small_model(tokens, shuffled_causal_order()).eval()
    batch = model.prepare(images, captions, generator=generator(3))
    loss = model(batch)

    text = model.aligner(batch.text, batch.dropped)
    rows = model.token_embedding.sequence(batch.tokens, batch.view.order)
    hidden = model.transformer(rows, model.transformer.text(text.states, text.mask), causal=True)
    total = torch.zeros(())
    for image in range(4):
        order = batch.view.order[image]
        random = keys_of(batch, image * 9 + order)
        total = total + model.head.loss(hidden[image], batch.tokens[image, order], random=random).total.sum()
    torch.testing.assert_close(loss.total, total)
    assert loss.num_tokens == 36


def test_hidden_tokens_never_reach_the_loss_of_others(small_model, images, captions):
    """Changing a predicted token of a bidirectional model changes no hidden vector: only its own target."""
    model = small_model("continuous", "random").eval()
    batch = model.prepare(images, captions, generator=generator(3))
    seen = []
    head_loss = model.head.loss
    model.head.loss = lambda condition, target, *, random: (
        seen.append(condition) or head_loss(condition, target, random=random)
    )
    model(batch)
    hidden = batch.view.predicted()
    model(attrs.evolve(batch, tokens=torch.where(hidden[..., None], batch.tokens + 5.0, batch.tokens)))
    assert torch.equal(seen[0], seen[1])
    model(attrs.evolve(batch, tokens=torch.where(hidden[..., None], batch.tokens, batch.tokens + 5.0)))
    assert not torch.equal(seen[0], seen[2])


@pytest.mark.parametrize(("tokens", "order"), COMBINATIONS)
def test_the_same_seed_gives_the_same_loss(small_model, images, captions, tokens, order):
    """All randomness of a step comes from the generator, whatever the global one does."""
    model = small_model(tokens, order)
    torch.manual_seed(1)
    first = model.loss(images, captions, generator=generator(7))
    torch.manual_seed(2)
    again = model.loss(images, captions, generator=generator(7))
    assert torch.equal(first.total, again.total)
    if (tokens, order) == ("discrete", "raster"):
        return  # Nothing is random there but which captions are dropped.
    other = model.loss(images, captions, generator=generator(8))
    assert not torch.equal(first.total, other.total)


@pytest.mark.parametrize(("tokens", "order"), COMBINATIONS)
def test_the_loss_of_an_image_does_not_depend_on_its_batch(small_model, images, captions, tokens, order):
    """The losses of four images alone add up to the loss of their batch, given the same keys."""
    model = small_model(tokens, order)
    batch = model.prepare(images, captions, generator=generator(3))
    together = model(batch)
    alone = [model(only(batch, torch.tensor([image]))) for image in range(4)]
    torch.testing.assert_close(sum(loss.total for loss in alone), together.total, rtol=1e-5, atol=1e-4)
    assert sum(loss.num_tokens for loss in alone) == together.num_tokens
    reversed_order = model(only(batch, torch.tensor([3, 2, 1, 0])))
    torch.testing.assert_close(reversed_order.total, together.total, rtol=1e-5, atol=1e-4)


def test_captions_are_dropped_at_the_given_rate(small_model, images, captions):
    """No caption matters when all are dropped, and none is dropped at rate 0."""
    model = small_model()

    def loss(texts, rate):
        return model.loss(images, texts, generator=generator(1), text_drop_probability=rate).total

    others = ["something else"] * 4
    assert torch.allclose(loss(captions, 1.0), loss(others, 1.0))
    assert not torch.allclose(loss(captions, 0.0), loss(others, 0.0))
    repeated = images[:1].expand(400, -1, -1, -1)
    batch = model.prepare(repeated, ["a"] * 400, generator=generator(1), text_drop_probability=0.25)
    assert 70 < int(batch.dropped.sum()) < 130


@pytest.mark.parametrize(("tokens", "order"), COMBINATIONS)
def test_gradients_reach_everything_that_trains(small_model, images, captions, tokens, order):
    """Every trainable parameter gets a finite gradient, and one that is not zero; the tokenizer gets none."""
    model = small_model(tokens, order)
    model.loss(images, captions, generator=generator(0), text_drop_probability=0.5).mean.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.isfinite().all()), name
        assert float(parameter.grad.abs().max()) > 0, name
    assert not any(parameter.requires_grad for parameter in model.tokenizer.parameters())


def test_tied_weights_are_one_parameter(small_model, images, captions):
    """The table of ids is saved once and counted once, and both of its uses train it."""
    model = small_model("discrete", "raster")
    table = model.token_embedding.content.weight
    assert model.head.output_weight is table
    assert [
        name for name, value in model.state_dict().items() if value.shape == table.shape and "codebook" not in name
    ] == ["token_embedding.content.weight"]
    assert sum(parameter is table for parameter in model.parameters()) == 1
    untied = small_model("discrete", "raster", head=ComponentChoice(name="softmax", options={"tied_weights": False}))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert sum(parameter.numel() for parameter in untied.parameters()) == count + table.numel()


def test_a_copy_of_a_model_is_tied_to_itself(small_model):
    """A deep copy uses its own table at both ends, and the original's no more."""
    model = small_model("discrete", "raster")
    copied = copy.deepcopy(model)
    assert copied.head.output_weight is copied.token_embedding.content.weight
    assert copied.head.output_weight is not model.token_embedding.content.weight


def test_loading_and_averaging_keep_weights_tied(small_model):
    """After loading a state, and inside a moving average, the head computes with the table that was put in."""
    model, other = small_model("discrete", "raster", seed=0), small_model("discrete", "raster", seed=1)
    model.load_state_dict(other.state_dict())
    assert model.head.output_weight is model.token_embedding.content.weight
    condition = torch.randn(3, 32)
    assert torch.equal(model.head.logits(condition), other.head.logits(condition))

    average = MovingAverage(model, decay=0.5)
    assert "token_embedding.content.weight" in average.weights
    assert len(average.weights) == sum(1 for _ in model.parameters())
    average.weights["token_embedding.content.weight"].zero_()
    with average.applied():
        torch.testing.assert_close(model.head.logits(condition), model.head.bias.expand(3, -1))
    assert torch.equal(model.head.logits(condition), other.head.logits(condition))


@pytest.fixture
def t5_model(small_model, tmp_path):
    """A model on a frozen, tiny T5."""
    options = example_t5_options(tmp_path / "t5")
    return small_model(text_encoder=ComponentChoice(name="t5", options={"path": options.path, "max_length": 64}))


def test_a_frozen_text_encoder_is_neither_trained_nor_saved(t5_model, images, captions):
    """T5 gets no gradient, is no part of the saved state, and stays out of the moving average; the rest trains."""
    assert any(name.startswith("text_encoder.") for name in t5_model.state_dict())
    assert not any(name.startswith("text_encoder.") for name in t5_model.saved_state())
    t5_model.loss(images, captions, generator=generator(), text_drop_probability=0.0).mean.backward()
    assert all(parameter.grad is None for parameter in t5_model.text_encoder.parameters())
    assert float(t5_model.aligner.projection.weight.grad.abs().max()) > 0
    assert not any(name.startswith("text_encoder.") for name in MovingAverage(t5_model, decay=0.9).weights)


def test_a_trained_text_encoder_is_saved(small_model):
    """The byte encoder's tables are part of what is saved, whole."""
    model = small_model()
    tables = {f"text_encoder.{name}" for name in model.text_encoder.state_dict()}
    assert "text_encoder.byte_embedding.weight" in tables
    assert tables <= model.saved_state().keys() == model.state_dict().keys()


def test_frozen_parts_stay_in_evaluation_mode(small_model):
    """Training mode reaches the backbone and never the tokenizer, whose noise would end up in the targets."""
    model = small_model()
    model.tokenizer.dropout = nn.Dropout(0.5)
    model.train()
    assert model.training
    assert model.transformer.training
    assert not model.tokenizer.training
    assert not model.tokenizer.dropout.training
    model.eval()
    assert not model.transformer.training


class ConstantHead(nn.Module):
    """The smallest thing that is a head."""

    def __init__(self, token_space):
        super().__init__()
        self.token_space = token_space

    def loss(self, condition, target, *, random):
        """Zero."""
        return TokenLoss(total=condition.sum(dim=1) * 0)

    def sampler(self, settings):
        """Zeros."""
        return lambda condition, request: torch.zeros(len(condition), *self.token_space.token_shape)


def build_unchecked(**given):
    """A model built as users do, without the type checker of the tests, which refuses wrong parts in its own words."""
    model = FluidModel.__new__(FluidModel)
    inspect.unwrap(FluidModel.__init__)(model, **given)
    return model


def parts(model):
    """The parts of a model, to put together anew."""
    return {"tokenizer": model.tokenizer, "text_encoder": model.text_encoder, "order": model.order, "backbone": "debug"}


def test_a_head_from_outside_the_catalog_works(small_model, images, captions):
    """A head that nobody declared, as a module or as a function of the context, is as good as any."""
    known = parts(small_model())
    space = known["tokenizer"].token_space
    contexts = []
    for head in (ConstantHead(space), lambda context: contexts.append(context) or ConstantHead(context.token_space)):
        model = FluidModel(head=head, **known)
        assert model.loss(images, captions, generator=generator()).total == 0
        assert model.config is None
    assert (contexts[0].width, contexts[0].token_space) == (32, space)
    assert contexts[0].token_embedding is model.token_embedding.content


def test_a_head_of_another_token_space_is_refused(small_model):
    """The message shows both spaces."""
    space = ContinuousTokens(grid=Grid(height=3, width=3), channels=7)
    with pytest.raises(IncompatibleComponentsError, match=r"channels=192\), but the head predicts .*channels=7\)"):
        FluidModel(head=ConstantHead(space), **parts(small_model()))


def test_parts_that_lack_something_are_refused_by_name(small_model):
    """What is no tokenizer, no order, no text encoder or no head is named with what it lacks."""
    known = parts(small_model())
    head = ConstantHead(known["tokenizer"].token_space)

    class Half(nn.Module):
        def decode(self, tokens):
            """Nothing."""

    with pytest.raises(InvalidComponentError, match=r"Half is no Tokenizer: it lacks .*'precompute'"):
        build_unchecked(head=head, **{**known, "tokenizer": Half()})
    with pytest.raises(InvalidComponentError, match=r"is no OrderPolicy: it lacks .*'training_view'"):
        build_unchecked(head=head, **{**known, "order": object()})
    with pytest.raises(InvalidComponentError, match="is no TextEncoder"):
        build_unchecked(head=head, **{**known, "text_encoder": nn.Identity()})
    with pytest.raises(InvalidComponentError, match="is no Head"):
        build_unchecked(head=nn.Identity(), **known)
    with pytest.raises(InvalidComponentError, match="is no Head"):
        build_unchecked(head=5, **known)


def test_a_tokenizer_must_be_a_module(small_model):
    """A tokenizer that has every method and is no module would not move or save with the model."""
    known = parts(small_model())

    class Plain:
        token_space = known["tokenizer"].token_space
        image_size = (24, 24)
        precompute = tokens = decode = staticmethod(lambda *args, **kwargs: None)

    with pytest.raises(InvalidComponentError, match=r"Plain must also be a torch\.nn\.Module"):
        FluidModel(head=ConstantHead(Plain.token_space), **{**known, "tokenizer": Plain()})


def test_captions_and_images_must_be_as_many(small_model, images):
    """One caption per image; an empty caption is refused by the text encoder."""
    model = small_model()
    with pytest.raises(InvalidRequestError, match="found 4 images and 1 captions"):
        model.loss(images, ["a"], generator=generator())
    with pytest.raises(PromptError, match="empty"):
        model.loss(images, ["a", "b", " ", "c"], generator=generator())


def test_the_order_decides_the_attention(small_model):
    """A model knows by its order whether it is causal, and only then needs to tell target positions."""
    assert small_model(order="raster").order.attention is AttentionPattern.CAUSAL
    assert small_model(order="random").order.attention is AttentionPattern.BIDIRECTIONAL


def test_tokens_are_the_tokenizers(small_model, images):
    """The model's tokens are the tokenizer's and carry no gradient."""
    model = small_model()
    random = KeyedRandom(torch.arange(4))
    tokens = model.tokens(images, random=random)
    assert torch.equal(tokens, model.tokenizer.tokens(model.tokenizer.precompute(images), random=random))
    torch.testing.assert_close(model.tokenizer.decode(tokens), images, atol=1e-5, rtol=1e-5)
    assert not tokens.requires_grad
