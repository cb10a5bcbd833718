"""FLOPs of a plan are those that PyTorch counts in a real training step."""

import attrs
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from fluid_core.configuration import BackboneConfig, ComponentChoice
from fluid_core.planning.paper_figures import PAPER_FLOPS, PAPER_IMAGES
from fluid_core.planning.skeleton import build_skeleton
from fluid_core.planning.training_flops import count_training_flops

NUM_IMAGES = 48


def _counted(model, batch):
    """Forward, and forward with backward, by torch's counter; it does not know the fused attention of CPUs."""
    with sdpa_kernel(SDPBackend.MATH):
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as forward:
            loss = model(batch)
        with FlopCounterMode(display=False) as backward:
            loss.total.backward()
    return forward.get_total_flops(), forward.get_total_flops() + backward.get_total_flops()


def test_forward_and_backward_are_those_of_a_real_step(medium_config, real_batch, tokens_and_order):
    """Causal and bidirectional, of all four models; how many tokens are predicted varies in the random order."""
    config = medium_config(*tokens_and_order)
    skeleton = build_skeleton(config)
    planned = count_training_flops(skeleton, skeleton.max_text_length)
    model, batch = real_batch(config, NUM_IMAGES)
    forward, training = _counted(model, batch)
    tolerance = 0.05 if tokens_and_order[1] == "random" else 0.001
    assert planned.forward * NUM_IMAGES == pytest.approx(forward, rel=tolerance)
    assert planned.training * NUM_IMAGES == pytest.approx(training, rel=tolerance)
    assert planned.aligner + planned.transformer + planned.head == pytest.approx(planned.forward, rel=0.02)


def test_only_the_number_of_predicted_tokens_differs(medium_config, real_batch):
    """With the number that a batch happens to predict, the plan's figures are torch's exactly."""
    config = medium_config("continuous", "random")
    model, batch = real_batch(config, 64)
    skeleton = build_skeleton(config)
    exact = attrs.evolve(skeleton, predicted_share=batch.view.num_predicted / batch.view.order.numel())
    forward, training = _counted(model, batch)
    planned = count_training_flops(exact, skeleton.max_text_length)
    assert planned.forward * 64 == forward
    assert planned.training * 64 == training


def test_heads_of_others_are_counted(medium_config, real_batch):
    """The Gaussian mixture of the example package."""
    config = medium_config("continuous", "raster", head=ComponentChoice(name="gaussian-mixture"))
    skeleton = build_skeleton(config)
    planned = count_training_flops(skeleton, skeleton.max_text_length)
    model, batch = real_batch(config, NUM_IMAGES)
    assert planned.training * NUM_IMAGES == pytest.approx(_counted(model, batch)[1], rel=1e-3)


def test_longer_captions_and_more_timesteps_cost_more(medium_config):
    """And a skeleton can be asked again and again."""
    skeleton = build_skeleton(medium_config())
    short, long, again = (count_training_flops(skeleton, length) for length in (8, 32, 8))
    assert short == again
    assert long.aligner > 3.9 * short.aligner
    assert long.transformer > short.transformer
    assert long.head == short.head
    more = build_skeleton(medium_config(head=ComponentChoice(name="diffusion", options={"timesteps_per_token": 8})))
    assert count_training_flops(more, 8).head > 2 * short.head


def test_causal_orders_predict_every_token_and_the_cosine_two_thirds(medium_config):
    """2/pi of them on average, and a little more because numbers are rounded up."""
    assert build_skeleton(medium_config(order="raster")).predicted_share == 1.0
    assert build_skeleton(medium_config(order="random")).predicted_share == pytest.approx(2 / torch.pi, abs=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("size", sorted(PAPER_FLOPS))
def test_the_papers_training_comes_out(size, medium_config):
    """Within a tenth of what its figure 7 shows, with our shapes, for every size there."""
    config = medium_config(
        tokenizer=ComponentChoice(name="kl-autoencoder", options={"preset": "sd-1.5"}),
        text_encoder=ComponentChoice(name="t5", options={"path": "google/t5-v1_1-xxl"}),
        head=ComponentChoice(name="diffusion"),
        backbone=BackboneConfig(size=size),
    )
    planned = count_training_flops(build_skeleton(config), 128)
    assert planned.training * PAPER_IMAGES == pytest.approx(PAPER_FLOPS[size], rel=0.1)
