"""What generation reads step by step is what training would compute: exactness of the cache and of the canvas."""

import pytest
import torch
from torch import nn

from fluid_core import AttentionPattern, FluidModel, KeyedRandom, TrainedPermutations
from fluid_core.exchange import TokenLoss, TrainingView
from fluid_core.generation import GenerationSettings, generate
from fluid_core.guidance import GuidanceSchedule
from fluid_core.planned_steps import PlannedSteps
from fluid_orders import CausalRandomOrder, ConfidenceOrder, HaltonOrder

PROMPTS = ["a red circle", "two blue squares above a star"]


class ListeningHead(nn.Module):
    """Draws noise as tokens, and keeps it and every hidden vector it is given."""

    def __init__(self, token_space):
        super().__init__()
        self.token_space = token_space
        self.heard = []
        self.negatives = []
        self.drawn = []

    def loss(self, condition, target, *, random):
        """Zero."""
        return TokenLoss(total=condition.sum(dim=1) * 0)

    def sampler(self, settings):
        """Noise."""

        def draw(condition, request):
            self.heard.append(condition)
            self.negatives.append(None if request.guidance is None else request.guidance.negative)
            self.drawn.append(request.random.normal(self.token_space.token_shape))
            return self.drawn[-1]

        return draw


class SureHead(ListeningHead):
    """One that is surer of some tokens than of others."""

    def confident_sampler(self, settings):
        """The same noise, and its first number."""
        draw = self.sampler(settings)

        class Sampler:
            def __call__(self, condition, request):
                return draw(condition, request)

            def with_confidence(self, condition, request):
                tokens = draw(condition, request)
                return tokens, tokens[:, 0]

        return Sampler()


class ListeningSteps:
    """Keeps what was proposed, and what of it was kept."""

    def __init__(self, steps, proposed, kept):
        self._steps, self._proposed, self._kept = steps, proposed, kept
        self.num_steps = steps.num_steps

    def propose(self):
        """As the steps inside."""
        positions = self._steps.propose()
        if positions is not None:
            self._proposed.append(positions)
        return positions

    def accept(self, confidence):
        """As the steps inside."""
        self._kept.append(self._steps.accept(confidence))
        return self._kept[-1]


class Listening:
    """An order like another, that keeps what it proposed and what of it was kept."""

    def __init__(self, order):
        self._order = order
        self.attention, self.trained_permutations = order.attention, order.trained_permutations
        self.training_view = order.training_view
        self.proposed, self.kept = [], []

    def generation(self, unknown, grid, *, num_steps, random):
        """As the order inside."""
        steps = self._order.generation(unknown, grid, num_steps=num_steps, random=random)
        return ListeningSteps(steps, self.proposed, self.kept)


class BackwardsOrder:
    """Causal over one fixed permutation that is not raster order: from the last position to the first."""

    attention = AttentionPattern.CAUSAL
    trained_permutations = TrainedPermutations.FIXED

    def training_view(self, batch_size, grid, *, generator, device):
        """The same for every image."""
        order = torch.arange(grid.length - 1, -1, -1).repeat(batch_size, 1)
        return TrainingView(order=order, num_known=torch.zeros(batch_size, dtype=torch.int64))

    def generation(self, unknown, grid, *, num_steps, random):
        """One position a step."""
        num_unknown = int(unknown[0].sum())
        return PlannedSteps(torch.arange(num_unknown - 1, -1, -1).repeat(len(unknown), 1), [1] * num_unknown)


class HesitantSteps:
    """Proposes the next three positions of an order and keeps the first of them, until one is left."""

    def __init__(self, order):
        self._left, self.num_steps = order, order.shape[1]

    def propose(self):
        """Up to three positions."""
        return self._left[:, :3] if self._left.shape[1] else None

    def accept(self, confidence):
        """The first, and no other."""
        kept = torch.zeros_like(self._left[:, :3], dtype=torch.bool)
        kept[:, 0] = True
        self._left = self._left[:, 1:]
        return kept


def hesitant(order):
    """An order that proposes more than it keeps, with the attention of another."""

    class Hesitant(type(order)):
        def generation(self, unknown, grid, *, num_steps, random):
            """Every image its own permutation; nothing is known at first."""
            return HesitantSteps(random.permutation(grid.length))

    return Hesitant()


@pytest.fixture
def listen(small_model):
    """A function that makes a model with a listening head and a listening order."""

    def make(order):
        model = small_model()
        return FluidModel(
            tokenizer=model.tokenizer,
            text_encoder=model.text_encoder,
            order=Listening(order if not isinstance(order, str) else small_model(order=order).order),
            head=ListeningHead(model.tokenizer.token_space),
            backbone="debug",
        ).eval()

    return make


def drawn(model, *, settings=None, **known):
    """Generate two images with fixed seeds."""
    with torch.no_grad():
        text = model.align_text(PROMPTS)
    return generate(model, text, random=KeyedRandom(torch.tensor([5, 9])), settings=settings, **known), text


def taught(model, text, tokens, order):
    """Hidden vectors of a causal training pass over `tokens` in `order`, by row."""
    with torch.no_grad():
        rows = model.token_embedding.sequence(tokens, order)
        return model.transformer(rows, model.transformer.text(text.states, text.mask), causal=True)


def pictured(model, text, tokens, known):
    """Hidden vectors of a canvas that shows the known tokens, by position."""
    with torch.no_grad():
        rows = model.token_embedding.canvas(tokens, known)
        return model.transformer(rows, model.transformer.text(text.states, text.mask), causal=False)


def close(found, expected):
    """Equal up to the rounding of sums in another order."""
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def check_one_token_a_step(model, tokens, text, known_positions=None):
    """Each hidden vector equals its row in the one training pass over what was generated."""
    steps = torch.cat(model.order.proposed, dim=1)
    order = steps if known_positions is None else torch.cat([known_positions, steps], dim=1)
    assert torch.equal(order.sort(dim=1).values, torch.arange(9).expand(2, -1))
    hidden = taught(model, text, tokens, order)
    for step, heard in enumerate(model.head.heard):
        close(heard, hidden[:, order.shape[1] - steps.shape[1] + step])
    assert len(model.head.heard) == steps.shape[1]


def test_raster_reads_what_training_computes(listen):
    """With a fixed permutation the cached hidden vectors are the rows of the teacher-forced pass."""
    model = listen("raster")
    tokens, text = drawn(model)
    check_one_token_a_step(model, tokens, text)


def test_any_permutation_reads_what_training_computes(listen, shuffled_causal_order):
    """So they are over any permutation, a different one for each image."""
    model = listen(shuffled_causal_order())
    tokens, text = drawn(model)
    assert not torch.equal(*torch.cat(model.order.proposed, dim=1))
    check_one_token_a_step(model, tokens, text)


@pytest.mark.parametrize("tokens_per_step", [2, 4, 9])
@pytest.mark.parametrize("num_known", [0, 1, 5])
def test_several_tokens_a_step_are_exact(listen, shuffled_causal_order, tokens_per_step, num_known):
    """Each of several tokens is predicted from all tokens of earlier steps and none of its own, as if alone next."""
    model = listen(shuffled_causal_order(tokens_per_step))
    given = torch.randn(2, 9, 192)
    known = torch.stack([torch.randperm(9, generator=torch.Generator().manual_seed(i)) < num_known for i in range(2)])
    tokens, text = drawn(model, tokens=given, known=known)
    committed = torch.stack([row.nonzero().squeeze(1) for row in known])
    assert len(model.head.heard) == -(-(9 - num_known) // tokens_per_step)
    for heard, positions in zip(model.head.heard, model.order.proposed, strict=True):
        heard = heard.unflatten(0, (2, -1))
        for candidate in range(positions.shape[1]):
            order = torch.cat([committed, positions[:, candidate : candidate + 1]], dim=1)
            rest = torch.stack([torch.tensor(sorted(set(range(9)) - set(row.tolist()))) for row in order]).long()
            hidden = taught(model, text, tokens, torch.cat([order, rest], dim=1))
            close(heard[:, candidate], hidden[:, committed.shape[1]])
        committed = torch.cat([committed, positions], dim=1)
    assert torch.equal(tokens[known], given[known])


@pytest.mark.parametrize(
    "order", [HaltonOrder(), ConfidenceOrder(), CausalRandomOrder()], ids=lambda one: type(one).__name__
)
def test_a_causal_model_follows_any_order_exactly(listen, order):
    """From the cache of a model over any permutation, each token of each step is predicted from the tokens kept before,
    in the order in which they were kept: along a sequence, surest first, or at random, several at a time.
    """
    model = listen(CausalRandomOrder())
    model.head = SureHead(model.tokenizer.token_space)
    asked = Listening(order)
    asked.needs_confidence = getattr(order, "needs_confidence", False)
    tokens, text = drawn(model, settings=GenerationSettings(num_steps=4), order=asked)
    committed = torch.empty(2, 0, dtype=torch.int64)
    for heard, positions, keep in zip(model.head.heard, asked.proposed, asked.kept, strict=True):
        heard = heard.unflatten(0, (2, -1))
        for candidate in range(positions.shape[1]):
            first = torch.cat([committed, positions[:, candidate : candidate + 1]], dim=1)
            rest = torch.tensor([sorted(set(range(9)) - set(row.tolist())) for row in first]).long()
            hidden = taught(model, text, tokens, torch.cat([first, rest], dim=1))
            close(heard[:, candidate], hidden[:, committed.shape[1]])
        committed = torch.cat([committed, positions[keep].view(2, -1)], dim=1)
    assert torch.equal(committed.sort(dim=1).values, torch.arange(9).expand(2, -1))


def test_known_tokens_of_a_fixed_permutation_keep_their_order(listen):
    """A model of a fixed order other than raster reads known tokens in its own order, the one it was trained on."""
    model = listen(BackwardsOrder())
    given = torch.randn(2, 9, 192)
    known = (torch.arange(9) >= 5).expand(2, -1)
    tokens, text = drawn(model, tokens=given, known=known)
    check_one_token_a_step(model, tokens, text, known_positions=torch.arange(8, 4, -1).expand(2, -1))


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_tokens_that_are_not_kept_leave_no_trace(listen, small_model, shuffled_causal_order, attention):
    """What was proposed and not kept is predicted anew, from the kept tokens alone and with fresh random numbers."""
    order = shuffled_causal_order() if attention == "causal" else small_model(order="random").order
    model = listen(hesitant(order))
    tokens, text = drawn(model)
    kept = torch.stack([positions[:, 0] for positions in model.order.proposed], dim=1)
    assert torch.equal(kept.sort(dim=1).values, torch.arange(9).expand(2, -1))
    for step, (heard, positions) in enumerate(zip(model.head.heard, model.order.proposed, strict=True)):
        known = torch.zeros(2, 9, dtype=torch.bool).scatter(1, kept[:, :step], True)
        for candidate in range(positions.shape[1]):
            if attention == "causal":
                # The order in which the others follow makes no difference to this row.
                first = torch.cat([kept[:, :step], positions[:, candidate : candidate + 1]], dim=1)
                rest = [sorted(set(range(9)) - set(row.tolist())) for row in first]
                expected = taught(model, text, tokens, torch.cat([first, torch.tensor(rest).long()], dim=1))[:, step]
            else:
                expected = pictured(model, text, tokens, known)[torch.arange(2), positions[:, candidate]]
            close(heard.unflatten(0, (2, -1))[:, candidate], expected)
    again = model.head.drawn[1].unflatten(0, (2, -1))[:, 0]
    first_try = model.head.drawn[0].unflatten(0, (2, -1))[:, 1]
    assert torch.equal(model.order.proposed[0][:, 1], model.order.proposed[1][:, 0])
    assert not torch.isclose(again, first_try).any()
    assert torch.equal(tokens[torch.arange(2), kept[:, 1]], again)


def test_every_token_has_random_numbers_of_its_own(listen):
    """No two tokens of an image, or of two images, are drawn from the same noise."""
    for order in ("raster", "random"):
        tokens, _ = drawn(listen(order))
        assert torch.corrcoef(tokens.flatten(0, 1)).fill_diagonal_(0.0).abs().max() < 0.5


def test_raster_continues_a_picture_exactly(listen):
    """Known tokens above go through the cache as if they had been generated."""
    model = listen("raster")
    given = torch.randn(2, 9, 192)
    known = (torch.arange(9) < 4).expand(2, -1)
    tokens, text = drawn(model, tokens=given, known=known)
    check_one_token_a_step(model, tokens, text, known_positions=torch.arange(4).expand(2, -1))


def test_bidirectional_reads_the_canvas_of_each_step(listen):
    """Hidden vectors of a random order are those of a canvas that shows exactly the tokens of earlier steps."""
    model = listen("random")
    tokens, text = drawn(model, settings=GenerationSettings(num_steps=4))
    known = torch.zeros(2, 9, dtype=torch.bool)
    for heard, positions in zip(model.head.heard, model.order.proposed, strict=True):
        hidden = pictured(model, text, tokens, known)
        close(heard.unflatten(0, (2, -1)), torch.stack([hidden[i, positions[i]] for i in range(2)]))
        known = known.scatter(1, positions, True)
    assert bool(known.all())


@pytest.mark.parametrize("order", ["raster", "random", "shuffled"])
def test_the_negative_branch_is_the_same_sequence_without_text(listen, shuffled_causal_order, order):
    """Under guidance the negative hidden vectors are those of a run without text over the very same tokens."""
    order = shuffled_causal_order(3) if order == "shuffled" else order
    model, alone = listen(order), listen(order)
    alone.load_state_dict(model.state_dict())
    tokens, _ = drawn(model, settings=GenerationSettings(guidance=GuidanceSchedule(scale=2.0)))
    # The listening head draws the same noise whatever it hears, so a run without text gets the same tokens.
    again = generate(alone, model.aligner.unconditional(2), random=KeyedRandom(torch.tensor([5, 9])))
    assert torch.equal(tokens, again)
    for negative, expected in zip(model.head.negatives, alone.head.heard, strict=True):
        close(negative, expected)
    assert all((a - b).abs().max() > 1e-3 for a, b in zip(model.head.heard, model.head.negatives, strict=True))
