"""The linear guidance schedule against the predecessor's (golden/data/mask_schedule.safetensors)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fluid_core import FluidConfig, FluidModel, FluidPipeline
from fluid_core.configuration import BackboneConfig, ComponentChoice

_RECORDED = load_file(Path(__file__).parent / "data" / "mask_schedule.safetensors")


def _model(grid_side: int) -> FluidModel:
    """A small model over `grid_side` squared tokens in random order."""
    patches = {"image_size": 4 * grid_side, "patch_size": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = FluidModel.from_config(
            FluidConfig(
                tokenizer=ComponentChoice(name="pixel-patches", options=patches),
                text_encoder=ComponentChoice(name="bytes", options={"width": 16}),
                order=ComponentChoice(name="random"),
                head=ComponentChoice(name="diffusion", options={"depth": 1}),
                backbone=BackboneConfig(size="debug"),
            )
        )
        model.tokenizer.fit(torch.rand(4, 3, 4 * grid_side, 4 * grid_side) * 2 - 1, seed=0)
    return model


@pytest.mark.parametrize(
    ("grid_side", "num_steps"), [(8, 1), (8, 8), (8, 16), (8, 32), (8, 64), (16, 8), (16, 16), (32, 8)]
)
def test_scales_equal_the_predecessors(grid_side: int, num_steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The head is told the recorded scale at every step but the last, and at the last the full scale.

    The predecessor's last step counts one token as still masked, though it decodes all: it stops short of the scale.
    """
    model = _model(grid_side)
    scales: list[float] = []

    def drawn(condition, request):
        scale = request.guidance.scale
        assert bool((scale == scale[0]).all())
        scales.append(float(scale[0]))
        return torch.zeros(len(condition), model.head.token_space.channels)

    monkeypatch.setattr(model.head, "sampler", lambda settings: drawn)
    pipeline = FluidPipeline(model)
    pipeline(
        "a red circle",
        guidance_scale=3.0,
        guidance_schedule="linear",
        num_inference_steps=num_steps,
        seed=0,
        output_type="tokens",
    )
    recorded = _RECORDED[f"seq{grid_side**2}_iter{num_steps}.cfg_linear_for_cfg3"].tolist()
    assert scales[:-1] == pytest.approx(recorded[:-1], abs=1e-6)
    assert scales[-1] == 3.0
    assert recorded[-1] == pytest.approx(3.0 - 2.0 / grid_side**2)
