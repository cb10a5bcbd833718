"""The package of text encoders as a whole."""

import subprocess
import sys

import pytest

import fluid_core.text


def test_it_loads_without_torch():
    """Options can be listed and checked without torch or transformers."""
    check = (
        "import sys, fluid_core.text, fluid_core.text.options; "
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_transformers_loads_only_with_a_model():
    """Importing the T5 encoder alone does not cost the seconds that transformers takes."""
    check = "import sys, fluid_core.text.t5_encoder; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_public_names_exist():
    """Everything in `__all__` can be had, and nothing else."""
    assert all(getattr(fluid_core.text, name) is not None for name in fluid_core.text.__all__)
    assert set(fluid_core.text.__all__) <= set(dir(fluid_core.text))
    with pytest.raises(AttributeError, match="no attribute 'Morse'"):
        _ = fluid_core.text.Morse
