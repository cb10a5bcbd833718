"""What the package of tokenizers declares."""

import subprocess
import sys

import pytest

from fluid_tokenizers import KLAutoencoder, PatchCodebook, PixelPatches, VQAutoencoder, plugin


def test_declarations_are_valid_and_build(tmp_path):
    """All tokenizers are declared without a problem, build from default or example options, and make what they say."""
    declared = plugin.fluid_register_tokenizers()
    assert [component.name for component in declared] == [
        "pixel-patches",
        "patch-codebook",
        "kl-autoencoder",
        "vq-autoencoder",
    ]
    assert [component.problems() for component in declared] == [[]] * 4
    built = [
        component.build(component.example(tmp_path) if component.example else component.options())
        for component in declared
    ]
    assert [type(tokenizer) for tokenizer in built] == [PixelPatches, PatchCodebook, KLAutoencoder, VQAutoencoder]
    assert [component.produces for component in declared] == [t.token_space.kind for t in built]


def test_the_plugin_loads_without_torch():
    """Listing components stays fast: neither the package nor its plugin imports torch, scikit-learn or diffusers."""
    check = (
        "import sys, fluid_tokenizers, fluid_tokenizers.plugin; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'sklearn', 'diffusers')))"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_public_names_exist():
    """Everything in `__all__` can be had, and nothing else."""
    import fluid_tokenizers

    assert all(getattr(fluid_tokenizers, name) is not None for name in fluid_tokenizers.__all__)
    assert set(fluid_tokenizers.__all__) <= set(dir(fluid_tokenizers))
    with pytest.raises(AttributeError, match="no attribute 'Mosaic'"):
        _ = fluid_tokenizers.Mosaic
