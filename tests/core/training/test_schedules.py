"""Learning rate, optimizer groups and the moving average: values worked out by hand."""

import math

import pytest
import torch
from torch import nn

from fluid_core.configuration import TrainingConfig
from fluid_core.training.step.learning_rate import learning_rate_factor
from fluid_core.training.step.moving_average import MovingAverage
from fluid_core.training.step.optimizer import build_optimizer


def factors(schedule, num_steps=10, warmup_steps=4):
    """The factor of every step."""
    return [
        learning_rate_factor(step, num_steps=num_steps, warmup_steps=warmup_steps, schedule=schedule)
        for step in range(num_steps)
    ]


def test_the_rate_warms_up_linearly_and_stays():
    """Quarter, half, three quarters, full: the first step already moves, and the last of warm-up is full."""
    assert factors("constant") == [0.25, 0.5, 0.75, 1.0, 1, 1, 1, 1, 1, 1]


def test_the_cosine_falls_from_one_to_nearly_zero():
    """After warm-up a half cosine: one at first, half in the middle, and zero one step after the last."""
    found = factors("cosine")
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    expected = [0.5 * (1 + math.cos(math.pi * step / 6)) for step in range(6)]
    assert found[4:] == pytest.approx(expected)
    assert found[7] == pytest.approx(0.5)
    assert learning_rate_factor(10, num_steps=10, warmup_steps=4, schedule="cosine") == pytest.approx(0.0)


def test_with_a_time_limit_the_cosine_follows_what_is_further_along():
    """Half of the time gone is half-way down, however few steps were taken; a constant rate stays."""
    settings = {"num_steps": 10, "warmup_steps": 0}
    assert learning_rate_factor(1, schedule="cosine", share_of_time=0.5, **settings) == pytest.approx(0.5)
    assert learning_rate_factor(5, schedule="cosine", share_of_time=0.1, **settings) == pytest.approx(0.5)
    assert learning_rate_factor(1, schedule="cosine", share_of_time=1.0, **settings) == pytest.approx(0.0)
    assert learning_rate_factor(1, schedule="constant", share_of_time=0.5, **settings) == 1.0


def test_the_rate_without_warmup_starts_full():
    """No warm-up, and warm-up longer than the run, are both fine."""
    assert factors("constant", warmup_steps=0) == [1.0] * 10
    assert factors("cosine", warmup_steps=20) == pytest.approx([(step + 1) / 20 for step in range(10)])


def test_the_moving_average_follows_by_its_formula():
    """Each step moves by one minus the decay, which warms up as (1 + step) / (10 + step) below its ceiling."""
    model = nn.Linear(2, 1, bias=False)
    average = MovingAverage(model, decay=0.3)
    expected = model.weight.detach().double().clone()
    for step in range(6):
        with torch.no_grad():
            model.weight.copy_(torch.randn(1, 2))
        decay = min(0.3, (1 + step) / (10 + step))
        assert average.decay_at(step) == decay
        expected = decay * expected + (1 - decay) * model.weight.detach().double()
        average.update(step)
        torch.testing.assert_close(average.weights["weight"].double(), expected, rtol=1e-5, atol=1e-6)
    assert average.decay_at(0) == 0.1
    assert average.decay_at(10) == 0.3


def test_the_moving_average_holds_trained_weights_only():
    """Frozen weights are no part of it, and it never shares memory with the model."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].requires_grad_(False)
    average = MovingAverage(model, decay=0.9)
    assert average.weights.keys() == {"0.weight", "0.bias"}
    before = average.weights["0.weight"].clone()
    with torch.no_grad():
        model[0].weight.add_(1)
    assert torch.equal(average.weights["0.weight"], before)
    assert not any(weight.requires_grad for weight in average.weights.values())


def test_applying_the_average_is_undone_even_after_an_error():
    """Inside the block the model computes with the average, afterwards bit for bit with its own weights."""
    model = nn.Linear(2, 2)
    average = MovingAverage(model, decay=0.9)
    average.weights["weight"].fill_(7.0)
    own = model.weight.detach().clone()
    with average.applied():
        assert torch.equal(model.weight, torch.full((2, 2), 7.0))
    assert torch.equal(model.weight, own)
    with pytest.raises(RuntimeError), average.applied():
        raise RuntimeError
    assert torch.equal(model.weight, own)
    assert model.weight.requires_grad


def test_only_matrices_decay(small_model):
    """Weights of linear layers decay; biases, norms, learned tokens and tables do not; frozen weights are left out."""
    for tokens in ("continuous", "discrete"):
        model = small_model(tokens, "random")
        model.aligner.projection.requires_grad_(False)
        config = TrainingConfig(num_steps=1, batch_size=1, weight_decay=0.05, learning_rate=0.5, beta1=0.8, beta2=0.9)
        optimizer = build_optimizer(model, config)
        decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        linear = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear)}
        for name, parameter in model.named_parameters():
            if name.startswith("aligner.projection"):
                assert id(parameter) not in decay
                continue
            assert decay[id(parameter)] == (0.05 if id(parameter) in linear else 0.0), name
        assert len(decay) == sum(p.requires_grad for p in model.parameters())
        assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.9)}
        names = {id(p): name for name, p in model.named_parameters()}
        free = {names[key] for key, value in decay.items() if value == 0.0}
        assert {"token_embedding.position.table", "token_embedding.placeholder", "aligner.no_text"} <= free
        if tokens == "discrete":
            assert "token_embedding.content.weight" in free
