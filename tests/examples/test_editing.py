"""The example that edits pictures."""

import numpy as np
import pytest
from PIL import Image

from fluid_core import FluidModel, FluidPipeline
from fluid_core.configuration import BackboneConfig, ComponentChoice, FluidConfig


@pytest.mark.parametrize("order", ["random", "causal-random"])
def test_the_sheet_of_edits(run_example, tmp_path, order):
    """Six pictures a row, four rows; the second of each row is grey where the results are drawn."""
    config = FluidConfig(
        tokenizer=ComponentChoice(name="pixel-patches", options={"image_size": 32, "patch_size": 8}),
        text_encoder=ComponentChoice(name="bytes", options={"width": 16}),
        order=ComponentChoice(name=order),
        head=ComponentChoice(name="diffusion", options={"depth": 1, "num_sampling_steps": 2}),
        backbone=BackboneConfig(size="debug"),
    )
    FluidPipeline(FluidModel.from_config(config)).save_pretrained(tmp_path / "run" / "model")
    run_example("editing.py", "--model", tmp_path / "run", "--out", tmp_path)
    sheet = np.asarray(Image.open(tmp_path / f"editing-{order}.png"))
    assert sheet.shape[1] == 6 * 158 + 14
    grey = (sheet == 128).all(axis=2)
    assert grey[:, 172:316].sum() > 4 * 0.5 * 144 * 144
    assert grey[:, 14:158].sum() == 0
