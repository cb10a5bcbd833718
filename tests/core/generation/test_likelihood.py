"""How likely a model finds an image: the same step by step from the cache, and in one teacher-forced pass."""

import pytest
import torch

from fluid_core import KeyedRandom
from fluid_core.exchange import SamplerSettings, TrainingView
from fluid_core.generation import generate
from fluid_core.model import TrainingBatch
from fluid_core.sampler_choice import ChosenSampler, build_sampler
from fluid_orders import CausalRandomOrder, CausalRandomOrderOptions

PROMPTS = ["a red circle", "two blue squares above a star"]


class Listening:
    """A sampler that keeps what it was asked about and what it drew."""

    def __init__(self, chosen):
        self._chosen = chosen
        self.conditions, self.drawn = [], []

    def __call__(self, condition, request):
        """As the sampler inside."""
        self.conditions.append(condition)
        self.drawn.append(self._chosen.sampler(condition, request))
        return self.drawn[-1]


@pytest.mark.parametrize(
    "order", ["raster", CausalRandomOrder(CausalRandomOrderOptions(num_steps=9))], ids=["raster", "causal-random"]
)
def test_teacher_forced_likelihood_equals_step_wise(small_model, order):
    """The negative log-likelihood of drawn ids is the sum over the steps that drew them, in nats."""
    model = small_model("discrete", order).eval()
    chosen = build_sampler(model.head, SamplerSettings())
    listening = Listening(chosen)
    proposed = []
    text = model.encode_text(PROMPTS)
    with torch.no_grad():
        tokens = generate(
            model,
            model.aligner(text),
            random=KeyedRandom(torch.tensor([5, 9])),
            sampler=ChosenSampler(sampler=listening, backend=chosen.backend),
            callback=lambda progress: proposed.append(progress.known),
        )
        random = KeyedRandom(torch.tensor([1, 2]))
        pairs = zip(listening.conditions, listening.drawn, strict=True)
        by_step = [model.head.loss(condition, ids, random=random).total for condition, ids in pairs]
        # One position an image and step: which one, from what became known.
        before = [torch.zeros_like(proposed[0]), *proposed[:-1]]
        positions = [(now & ~then).int().argmax(dim=1) for now, then in zip(proposed, before, strict=True)]
        batch = TrainingBatch(
            tokens=tokens,
            text=text,
            dropped=torch.zeros(2, dtype=torch.bool),
            view=TrainingView(order=torch.stack(positions, dim=1), num_known=torch.zeros(2, dtype=torch.int64)),
            random=random,
        )
        at_once = model(batch).total
    assert all(len(each) == 2 for each in by_step)
    torch.testing.assert_close(torch.stack(by_step).sum(), at_once, atol=1e-3, rtol=1e-5)
    assert float(at_once) > 1.0
