"""The four wheels, built and installed into fresh environments that do not see the source tree.

Third-party packages are linked from the running environment, since they are not what is tested. Everything of this
repository, and whatever else is installed in development mode, is left out and comes from the wheels alone.
"""

import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import attrs
import pytest

REPOSITORY = Path(__file__).parents[2]
DISTRIBUTIONS = ("fluid-core", "fluid-heads", "fluid-orders", "fluid-tokenizers")
COMPONENTS = {
    "fluid-core": {
        ("dataset", "hf-dataset"),
        ("dataset", "image-folder"),
        ("dataset", "mixture"),
        ("dataset", "shapes"),
        ("dataset", "token-cache"),
        ("dataset", "webdataset"),
        ("feature-network", "efficientnet-lite0"),
        ("feature-network", "random-convolutions"),
        ("feature-network", "torchscript"),
        ("text-encoder", "bytes"),
        ("text-encoder", "t5"),
        ("text-encoder", "transformers-encoder"),
    },
    "fluid-heads": {("head", "diffusion"), ("head", "flow"), ("head", "softmax")},
    "fluid-orders": {
        ("order", "causal-random"),
        ("order", "confidence"),
        ("order", "fixed"),
        ("order", "halton"),
        ("order", "random"),
        ("order", "raster"),
    },
    "fluid-tokenizers": {
        ("tokenizer", "kl-autoencoder"),
        ("tokenizer", "patch-codebook"),
        ("tokenizer", "pixel-patches"),
        ("tokenizer", "vq-autoencoder"),
    },
}
SELECTIONS = [("fluid-core",), *(("fluid-core", plugin) for plugin in DISTRIBUTIONS[1:]), DISTRIBUTIONS]

LOCATIONS = """
import importlib, json, sys
print(json.dumps({name: importlib.import_module(name).__file__ for name in sys.argv[1:]}))
"""

SAMPLE = """
import json, sys
import torch
from fluid_core import FluidConfig, FluidModel, FluidPipeline
from fluid_core.configuration import BackboneConfig, ComponentChoice

config = FluidConfig(
    tokenizer=ComponentChoice(name="pixel-patches", options={"image_size": 16, "patch_size": 4}),
    text_encoder=ComponentChoice(name="bytes", options={"width": 32, "max_length": 32}),
    order=ComponentChoice(name="random"),
    head=ComponentChoice(name="diffusion", options={"depth": 1, "width": 32, "num_sampling_steps": 5}),
    backbone=BackboneConfig(width=32, depth=1, num_heads=2, aligner_depth=1),
)
torch.manual_seed(0)
model = FluidModel.from_config(config)
with torch.no_grad():
    model.tokenizer.fit(torch.rand(8, 3, 16, 16) * 2 - 1, seed=0)
pipeline = FluidPipeline(model)
pipeline.save_pretrained("saved")
drawn = FluidPipeline.from_pretrained("saved")("a red circle", num_inference_steps=3, seed=0)
same = pipeline("a red circle", num_inference_steps=3, seed=0)
drawn.images[0].save("picture.png")
print(json.dumps({"size": drawn.images[0].size, "same": bool(torch.equal(drawn.tokens, same.tokens))}))
"""


@attrs.frozen(kw_only=True)
class Environment:
    """A virtual environment with some of the wheels, and an empty folder to work in."""

    folder: Path
    work: Path

    def run(self, *arguments: str) -> str:
        """Standard output of Python started with arguments, isolated from paths and settings of this process."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FLUID_"))}
        finished = subprocess.run(
            [str(self.folder / "bin" / "python"), "-I", *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.work,
            env=kept | {"OMP_NUM_THREADS": "1"},
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout

    def fluid(self, *arguments: str) -> str:
        """Standard output of the installed program `fluid`."""
        return self.run(str(self.folder / "bin" / "fluid"), *arguments)


def developed_entries() -> set[str]:
    """Names in site-packages that belong to distributions installed in development mode."""
    entries = set()
    for distribution in importlib.metadata.distributions():
        direct = json.loads(distribution.read_text("direct_url.json") or "{}")
        if direct.get("dir_info", {}).get("editable"):
            entries |= {file.parts[0] for file in distribution.files or ()}
    return entries


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Path]:
    """The wheel of each distribution, built as for a release."""
    folder = tmp_path_factory.mktemp("wheels")
    built = {}
    for distribution in DISTRIBUTIONS:
        target = folder / distribution
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target)]
        finished = subprocess.run(
            [*command, str(REPOSITORY / "packages" / distribution)], capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        (built[distribution],) = target.glob("*.whl")
    return built


@pytest.fixture
def install(wheels, tmp_path):
    """A function that makes an environment with the wheels of the given distributions."""

    def make(distributions: tuple[str, ...]) -> Environment:
        folder, work = tmp_path / "environment", tmp_path / "work"
        work.mkdir()
        venv.EnvBuilder(with_pip=False).create(folder)
        site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        left_out = developed_entries() | {"__pycache__"}
        assert any("fluid_core" in name for name in left_out)
        for entry in Path(sysconfig.get_path("purelib")).iterdir():
            if entry.name not in left_out:
                (site / entry.name).symlink_to(entry)
        python = str(folder / "bin" / "python")
        chosen = [str(wheels[distribution]) for distribution in distributions]
        finished = subprocess.run(
            [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", *chosen],
            capture_output=True,
            text=True,
            check=False,
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return Environment(folder=folder, work=work)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_a_wheel_holds_what_it_should(wheels, distribution):
    """All modules and lists of words, the type marker, the licence and the entry points are inside; tests are not."""
    package = distribution.replace("-", "_")
    source = REPOSITORY / "packages" / distribution / "src"
    version = tomllib.loads((source.parent / "pyproject.toml").read_text())["project"]["version"]
    information = f"{package}-{version}.dist-info"
    with zipfile.ZipFile(wheels[distribution]) as wheel:
        names = set(wheel.namelist())
        entry_points = wheel.read(f"{information}/entry_points.txt").decode()
        licence = wheel.read(f"{information}/licenses/LICENSE").decode()
        metadata = wheel.read(f"{information}/METADATA").decode()
    modules = {str(path.relative_to(source)) for kind in ("*.py", "*.txt") for path in (source / package).rglob(kind)}
    assert {name for name in names if not name.startswith(f"{information}/")} == modules | {f"{package}/py.typed"}
    assert not [name for name in names if Path(name).name.startswith(("test_", "conftest"))]
    assert f"[fluid_core]\n{distribution} = {package}.plugin" in entry_points
    assert ("fluid = fluid_core.cli:main" in entry_points) == (distribution == "fluid-core")
    assert "Apache License" in licence
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Python: >=3.11" in metadata


@pytest.mark.slow
@pytest.mark.parametrize("distributions", SELECTIONS, ids=" + ".join)
def test_wheels_work_in_any_selection(install, distributions):
    """Each package is installable with core alone: its components are listed, nobody else's, and nothing failed."""
    environment = install(distributions)
    listed = json.loads(environment.fluid("components", "--json"))
    found = {(one["distribution"], one["kind"], one["name"]) for one in listed["components"]}
    assert found == {(name, *component) for name in distributions for component in COMPONENTS[name]}
    assert {one["version"] for one in listed["components"]} == {importlib.metadata.version("fluid-core")}
    assert listed["failures"] == listed["conflicts"] == []

    packages = [name.replace("-", "_") for name in distributions]
    modules = [*packages, *(f"{package}.plugin" for package in packages)]
    for name, file in json.loads(environment.run("-c", LOCATIONS, *modules)).items():
        assert Path(file).is_relative_to(environment.folder), f"{name} comes from {file}"


@pytest.mark.slow
def test_wheels_draw_a_picture(install):
    """With all four wheels a model is built by name, saved, loaded again and draws the same picture."""
    environment = install(DISTRIBUTIONS)
    assert json.loads(environment.run("-c", SAMPLE)) == {"size": [16, 16], "same": True}
    environment.fluid("sample", "saved", "two blue squares", "--steps", "2", "--seed", "1", "--out", "drawn")
    drawn = {path.name for path in (environment.work / "drawn").iterdir()}
    assert drawn == {"00000.png", "run.json", "sheet.png"}
