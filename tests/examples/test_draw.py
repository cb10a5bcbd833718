"""`examples/draw.py` with the model that comes with the repository."""

import re
from pathlib import Path

from PIL import Image

from fluid_core import FluidPipeline

PRETRAINED = Path(__file__).parents[2] / "examples" / "pretrained"


def test_it_draws_what_it_is_asked_for(run_example, tmp_path):
    """Prompts of one's own become a sheet of pictures, and the judge's scores are printed when asked for."""
    printed = run_example("draw.py", "two green crosses", "a red circle", "--score", 1, "--out", tmp_path)
    assert "2 pictures in" in printed
    assert re.search(r"overall\s+[01]\.\d\d", printed)
    with Image.open(tmp_path / "pictures.png") as sheet:
        assert len(sheet.convert("RGB").getcolors(maxcolors=2**20)) > 10


def test_the_shipped_model_draws_the_colour_it_is_asked_for():
    """Most pixels that are not background have the colour of the prompt, for averaged weights and a fixed seed."""
    pipeline = FluidPipeline.from_pretrained(PRETRAINED / "fluid-shapes")
    assert pipeline.weights == "ema"
    red, blue = (
        pipeline([f"a {color} square"] * 2, seed=[1, 2], guidance_scale=1.5, temperature=0.8, output_type="pt").images
        for color in ("red", "blue")
    )
    for pictures, channel in ((red, 0), (blue, 2)):
        drawn = pictures.amin(dim=1) < 0.6
        assert drawn.float().mean() > 0.05
        assert pictures.movedim(1, -1)[drawn].mean(dim=0).argmax() == channel


def test_the_trained_things_stay_small():
    """Everything in the folder together: 25 MB at most, as a clone must stay quick."""
    assert sum(path.stat().st_size for path in PRETRAINED.rglob("*") if path.is_file()) < 25_000_000
