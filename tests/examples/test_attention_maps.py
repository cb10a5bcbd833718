"""`examples/attention_maps.py` with tiny models: a picture of both kinds of attention, and figures that must hold."""

import re

import numpy as np
import pytest
from PIL import Image

from fluid_core import FluidModel, FluidPipeline
from fluid_core.configuration import BackboneConfig, ComponentChoice, FluidConfig


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folders of models of 16 tokens over a fixed order, over any with a cache, and over any without; untrained."""
    folders = []
    for order in ("raster", "causal-random", "random"):
        config = FluidConfig(
            tokenizer=ComponentChoice(name="pixel-patches", options={"image_size": 32, "patch_size": 8}),
            text_encoder=ComponentChoice(name="bytes", options={"width": 16, "merge_words": True}),
            order=ComponentChoice(name=order),
            head=ComponentChoice(name="flow", options={"depth": 1, "width": 16, "num_sampling_steps": 2}),
            backbone=BackboneConfig(size="debug"),
        )
        folders.append(tmp_path_factory.mktemp("models") / order)
        FluidPipeline(FluidModel.from_config(config)).save_pretrained(folders[-1])
    return folders


def test_maps_are_drawn_and_figures_hold(models, run_example, tmp_path):
    """Weights add up to 1; what is not seen has none; causal models give some to their start, others to the unknown."""
    out = tmp_path / "maps.png"
    printed = run_example("attention_maps.py", *models, "--share-known", 0.5, "--layers", 1, 2, "--out", out)
    assert "raster: causal attention, one fixed order" in printed
    assert "causal-random: causal attention, any order" in printed
    assert "random: bidirectional attention, any order" in printed
    pattern = r"known ([\d.]+) unknown ([\d.]+) start ([\d.]+) unseen ([\d.]+)"
    figures = np.array([[float(value) for value in found] for found in re.findall(pattern, printed)])
    assert figures.shape == (3 * 3 * 2, 4)
    assert np.allclose(figures.sum(axis=1), 1.0, atol=0.021)
    assert (figures[:, 3] == 0).all()
    causal, bidirectional = figures[:12], figures[12:]
    assert (causal[:, 2] > 0).all()
    assert (causal[:, 1] == 0).all()
    assert (bidirectional[:, 2] == 0).all()
    assert (bidirectional[:, :2] > 0).all()
    with Image.open(out) as picture:
        assert min(picture.size) > 300
        assert len(picture.convert("RGB").getcolors(maxcolors=2**20)) > 50


def test_the_last_moment_has_what_is_left(models, run_example, tmp_path):
    """With all tokens but one known there is one position to ask, which is not known itself."""
    for model in models[1:]:
        printed = run_example("attention_maps.py", model, "--share-known", 0.99, "--out", tmp_path / "maps.png")
        assert re.findall(r"position \d,\d \((\d+) known\)", printed) == ["15"]


def test_positions_can_be_chosen(models, run_example, tmp_path):
    """Those that are asked for are asked, one that is known already is refused."""
    out = tmp_path / "maps.png"
    printed = run_example("attention_maps.py", models[0], "--positions", "1,2", "3,3", "--layers", 1, "--out", out)
    assert re.findall(r"position (\d),(\d) \((\d+) known\)", printed) == [("1", "2", "6"), ("3", "3", "15")]
    with pytest.raises(AssertionError, match="outside the picture"):
        run_example("attention_maps.py", models[2], "--positions", "4,0", "--out", out)
