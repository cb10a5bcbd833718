"""The names the packages promise, and what comes with them.

A name that goes away breaks somebody's program. So the lists are written down a second time here: whoever changes one
changes it on purpose, and writes a line in the changelog.
"""

import importlib
import importlib.metadata
import json
import subprocess
import sys
import tomllib

import pytest

PUBLIC_NAMES = {
    "fluid_core": [
        "AttentionPattern",
        "ComponentCatalog",
        "ContinuousTokens",
        "DiscreteTokens",
        "FluidConfig",
        "FluidModel",
        "FluidPipeline",
        "Grid",
        "KeyedRandom",
        "TokenSpace",
        "TrainedPermutations",
        "Trainer",
        "load_config",
    ],
    "fluid_core.configuration": [
        "FORMAT_VERSION",
        "BackboneConfig",
        "ComponentChoice",
        "FluidConfig",
        "PerceptualTerm",
        "SavedConfig",
        "TokenizerRunConfig",
        "TokenizerTrainingConfig",
        "TrainingConfig",
        "TrainingCourse",
        "apply_overrides",
        "config_from_json",
        "config_to_json",
        "load_config",
        "load_tokenizer_run",
        "read_saved_config",
        "structure",
        "tokenizer_run_from_json",
        "unstructure",
    ],
    "fluid_core.data": [
        "CaptionedImage",
        "CaptionedImages",
        "CaptionedStream",
        "EpochVariants",
        "HuggingFaceDatasetOptions",
        "ImageFolderDataset",
        "ImageFolderOptions",
        "JudgedPrompt",
        "JudgedPrompts",
        "ShapesDataset",
        "ShapesOptions",
        "StreamSample",
        "Verdict",
        "WebDatasetOptions",
    ],
    "fluid_core.testing": [
        "DatasetSuite",
        "EncodedDatasetSuite",
        "FeatureNetworkSuite",
        "HeadSuite",
        "OrderSuite",
        "TextEncoderSuite",
        "TokenizerSuite",
        "install_plugin",
    ],
    "fluid_core.text": [
        "ByteEncoder",
        "ByteEncoderOptions",
        "T5Encoder",
        "T5EncoderOptions",
        "TransformersEncoder",
        "TransformersEncoderOptions",
        "build_byte_encoder",
        "build_t5_encoder",
        "build_transformers_encoder",
        "example_t5_options",
        "example_transformers_options",
    ],
    "fluid_heads": [
        "DiffusionHead",
        "DiffusionOptions",
        "FlowHead",
        "FlowOptions",
        "SoftmaxHead",
        "SoftmaxOptions",
        "load_predecessor_head",
    ],
    "fluid_orders": [
        "CausalRandomOrder",
        "CausalRandomOrderOptions",
        "ConfidenceOrder",
        "ConfidenceOrderOptions",
        "FixedOrder",
        "FixedOrderOptions",
        "HaltonOrder",
        "HaltonOrderOptions",
        "RandomOrder",
        "RandomOrderOptions",
        "RasterOrder",
        "RasterOrderOptions",
        "cosine_step_sizes",
        "step_sizes_on_curve",
    ],
    "fluid_tokenizers": [
        "PRESETS",
        "AutoencoderPreset",
        "KLAutoencoder",
        "KLAutoencoderOptions",
        "LatentStatistics",
        "PatchCodebook",
        "PatchCodebookOptions",
        "PixelPatches",
        "PixelPatchesOptions",
        "VQAutoencoder",
        "VQAutoencoderOptions",
        "from_patches",
        "to_patches",
    ],
}
DISTRIBUTIONS = ("fluid-core", "fluid-heads", "fluid-orders", "fluid-tokenizers")
HEAVY = ["torch", "transformers", "numpy", "scipy", "sklearn", "PIL", "matplotlib", "safetensors"]

LOADED = """
import json, sys
import {package}
before = sorted(set(sys.modules) & set({heavy}))
names = dir({package})
after = sorted(set(sys.modules) & set({heavy}))
print(json.dumps({{"before": before, "after": after, "names": names}}))
"""


@pytest.fixture(scope="module")
def projects(repository):
    """The project table of each pyproject.toml, by distribution."""
    return {
        name: tomllib.loads((repository / "packages" / name / "pyproject.toml").read_text())["project"]
        for name in DISTRIBUTIONS
    }


@pytest.mark.parametrize("package", PUBLIC_NAMES)
def test_public_names_are_those_promised(package):
    """No public name appears or goes away by accident. Changing the list is a line in the changelog."""
    assert sorted(importlib.import_module(package).__all__) == sorted(PUBLIC_NAMES[package])


@pytest.mark.parametrize("package", PUBLIC_NAMES)
def test_public_names_resolve(package):
    """Every public name can be had from the package, under that name, with a docstring if it is code."""
    module = importlib.import_module(package)
    for name in PUBLIC_NAMES[package]:
        value = getattr(module, name)
        assert getattr(value, "__name__", name) == name
        if callable(value):
            assert value.__doc__, f"{package}.{name} has no docstring"


@pytest.mark.parametrize("package", PUBLIC_NAMES)
def test_unknown_names_are_attribute_errors(package):
    """A misspelt name is an ordinary AttributeError that says which package was asked for what."""
    module = importlib.import_module(package)
    with pytest.raises(AttributeError, match=rf"module '{package}' has no attribute 'no_such_name'"):
        _ = module.no_such_name


@pytest.mark.parametrize("package", [package for package in PUBLIC_NAMES if package != "fluid_core.testing"])
def test_importing_a_package_is_cheap(package):
    """Neither importing a package nor listing its names loads torch or anything else that takes seconds."""
    finished = subprocess.run(
        [sys.executable, "-c", LOADED.format(package=package, heavy=HEAVY)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert found["before"] == []
    assert found["after"] == []
    assert set(PUBLIC_NAMES[package]) <= set(found["names"])


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_packages_are_typed(repository, distribution):
    """Type checkers of users read our annotations: the marker file is there."""
    folder = repository / "packages" / distribution / "src" / distribution.replace("-", "_")
    assert (folder / "py.typed").is_file()


def test_versions_are_in_lockstep(projects):
    """The four distributions, their `__version__` and what is installed are one version."""
    versions = {
        (name, place): version
        for name, project in projects.items()
        for place, version in {
            "pyproject.toml": project["version"],
            "__version__": importlib.import_module(name.replace("-", "_")).__version__,
            "installed": importlib.metadata.version(name),
        }.items()
    }
    assert len(set(versions.values())) == 1, versions
