"""The pictures of the orders in the documentation are what the script draws."""

from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).parents[2]


def test_pictures_are_drawn_and_small(run_example, tmp_path):
    """Both pictures, with many colours, in less than 100 kB each; the documentation has pictures of the same size."""
    run_example("order_pictures.py", "--out", tmp_path)
    for name in ("orders.png", "step-sizes.png"):
        drawn = Image.open(tmp_path / name).convert("RGB")
        assert (tmp_path / name).stat().st_size < 100_000
        assert len(np.unique(np.asarray(drawn).reshape(-1, 3), axis=0)) > 20
        assert Image.open(REPOSITORY / "docs/images" / name).size == drawn.size
