"""What the package of tokenizers declares."""

import subprocess
import sys

import pytest

from fluid_tokenizers import PatchCodebook, PixelPatches, plugin


def test_declarations_are_valid_and_build():
    """Both tokenizers are declared without a problem, build from default options, and make what they say."""
    declared = plugin.fluid_register_tokenizers()
    assert [component.name for component in declared] == ["pixel-patches", "patch-codebook"]
    assert [component.problems() for component in declared] == [[], []]
    built = [component.build(component.options()) for component in declared]
    assert [type(tokenizer) for tokenizer in built] == [PixelPatches, PatchCodebook]
    assert [component.produces for component in declared] == [t.token_space.kind for t in built]


def test_the_plugin_loads_without_torch():
    """Listing components stays fast: neither the package nor its plugin imports torch or scikit-learn."""
    check = (
        "import sys, fluid_tokenizers, fluid_tokenizers.plugin; "
        "sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_public_names_exist():
    """Everything in `__all__` can be had, and nothing else."""
    import fluid_tokenizers

    assert all(getattr(fluid_tokenizers, name) is not None for name in fluid_tokenizers.__all__)
    assert set(fluid_tokenizers.__all__) <= set(dir(fluid_tokenizers))
    with pytest.raises(AttributeError, match="no attribute 'Mosaic'"):
        _ = fluid_tokenizers.Mosaic
