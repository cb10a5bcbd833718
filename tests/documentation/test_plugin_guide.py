"""docs/writing-a-plugin.md names every hook, and what it shows is valid and works.

The packages of the guide are put together from its blocks and installed by pip into a folder of the test, as a reader
would; programs started with that folder in `PYTHONPATH` find them as plugins.
"""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib

import attrs
import pytest

import fluid_core.testing
from fluid_core.catalog import ComponentCatalog
from fluid_core.discovery import HOOKS
from fluid_core.testing.temporary_plugin import temporary_plugin

PACKAGES = ("fluid-logistic", "my-parts")

BUILD = """
import json, sys
from fluid_core import FluidModel, load_config
from fluid_core.errors import FluidError
found = []
for overrides in json.loads(sys.argv[1]):
    try:
        FluidModel.from_config(load_config("logistic.toml", overrides=overrides))
        found.append("")
    except FluidError as error:
        found.append(str(error))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def guide(repository, document):
    """The guide for authors of plugins."""
    return document.read(repository / "docs" / "writing-a-plugin.md")


@pytest.fixture(scope="module")
def guide_text(repository):
    """Its text as written."""
    return (repository / "docs" / "writing-a-plugin.md").read_text()


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented(guide_text, hook):
    """The guide names each hook exactly, and the class of the declarations it returns."""
    assert re.search(rf"\b{hook}\b", guide_text)
    assert re.search(rf"\b{HOOKS[hook].__name__}\b", guide_text)


def test_no_other_hook_is_implemented(guide):
    """A hook that is gone is gone from the code of the guide; texts may show what a misspelt one leads to."""
    implemented = {
        name for block in guide.code("python") for name in re.findall(r"def (fluid_register_\w+)", block.text)
    }
    assert implemented
    assert implemented <= set(HOOKS)


def test_every_kind_has_its_suite_in_the_guide(guide_text):
    """The guide tells which conformance suite tests which kind of component."""
    suites = [name for name in fluid_core.testing.__all__ if name.endswith("Suite")]
    # Data sets have two: of pictures, and of what a tokenizer made of them.
    assert len(suites) == len(HOOKS) + 1
    assert [name for name in suites if not re.search(rf"\b{name}\b", guide_text)] == []


def test_what_the_guide_shows_is_valid(guide):
    """Python compiles; TOML and JSON can be read."""
    assert guide.code("python")
    assert guide.code("toml")
    for block in guide.code("python"):
        compile(block.text, f"{guide.name}, line {block.line}", "exec")
    for block in guide.code("toml"):
        tomllib.loads(block.text)
    for block in guide.code("json"):
        json.loads(block.text)


def test_the_entry_point_group_is_shown(guide):
    """One of the TOML blocks is a pyproject.toml with an entry point that discovery looks for."""
    projects = [tomllib.loads(block.text).get("project", {}) for block in guide.code("toml")]
    assert [one for one in projects if one.get("entry-points", {}).get("fluid_core")]


def test_what_the_guide_imports_exists(guide):
    """Names imported from Fluid's packages can be imported: the guide does not lag behind the code."""
    missing = []
    for block in guide.code("python"):
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "fluid_core":
                module = importlib.import_module(node.module)
                missing += [f"{node.module}.{one.name}" for one in node.names if not hasattr(module, one.name)]
    assert missing == []


@attrs.frozen(kw_only=True)
class Reader:
    """A folder with the files of the guide, and a folder with its packages installed."""

    folder: os.PathLike
    site: os.PathLike

    python: str
    """Starts without the seconds of imports."""

    def run(self, *command, **variables):
        """What a command printed, run as a Python module or program by the reader; fails if it fails."""
        environment = os.environ | {"PYTHONPATH": str(self.site), "OMP_NUM_THREADS": "1", "COLUMNS": "200"} | variables
        # What installs packages asks Python where it is.
        python = sys.executable if "pip" in command else self.python
        finished = subprocess.run(
            [python, *command], cwd=self.folder, env=environment, capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        return finished.stdout


def write_files(guide, folder):
    """Write every block that is a file."""
    for block in guide.blocks:
        if block.file:
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)


@pytest.fixture(scope="module")
def reader(guide, warm_start, tmp_path_factory):
    """Somebody who has copied all files and installed the packages."""
    folder = tmp_path_factory.mktemp("guide")
    write_files(guide, folder)
    someone = Reader(folder=folder, site=folder / "site", python=warm_start.python)
    install = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", "site")
    someone.run(*install, *(f"./{package}" for package in PACKAGES), PIP_DISABLE_PIP_VERSION_CHECK="1")
    return someone


def shown(guide_text):
    """Commands of the guide's consoles with what they print: pairs of texts, white space as single spaces."""
    consoles = re.findall(r"^```console\n(.*?)^```$", guide_text, re.MULTILINE | re.DOTALL)
    parts = [part.partition("\n") for text in consoles for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]]
    return [(command, " ".join(output.split())) for command, _, output in parts]


def text_of(guide, file):
    """The text of a file of the guide."""
    (found,) = [block.text for block in guide.blocks if block.file == file]
    return found


def test_files_form_packages(guide):
    """Each package has a project file, the modules it names, a test and no file twice."""
    files = [block.file for block in guide.blocks if block.file]
    assert len(set(files)) == len(files)
    for package in PACKAGES:
        project = tomllib.loads(text_of(guide, f"{package}/pyproject.toml"))
        (wheel_package,) = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
        assert f"{package}/{wheel_package}/__init__.py" in files
        (module,) = project["project"]["entry-points"]["fluid_core"].values()
        assert f"{package}/src/{module.replace('.', '/')}.py" in files
        assert [name for name in files if re.fullmatch(rf"{package}/tests/test_\w+\.py", name)]


def test_every_hook_is_implemented(guide):
    """The plugin modules of the guide together implement every hook, and none of them is refused."""
    modules = [text_of(guide, f"{package}/src/{package.replace('-', '_')}/plugin.py") for package in PACKAGES]
    assert set(re.findall(r"^def (fluid_register_\w+)", "\n".join(modules), re.MULTILINE)) == set(HOOKS)


def test_the_plugin_of_the_guide_is_accepted_and_its_broken_one_explained(guide, guide_text, tmp_path):
    """The head is found by its name; with the mistakes that the guide makes on purpose, core says what it shows."""
    plugin = text_of(guide, "fluid-logistic/src/fluid_logistic/plugin.py")
    with temporary_plugin(plugin, folder=tmp_path / "good", distribution="fluid-logistic", version="0.1.0"):
        assert ComponentCatalog.discover(disabled=()).find("head", "logistic").origin == "fluid-logistic 0.1.0"
    prose = " ".join(guide_text.split())
    for folder, (right, wrong, end) in {
        "hook": ("def fluid_register_heads", "def fluid_register_head", " 'fluid_register_datasets'"),
        "import": ("from fluid_core.components ", "from fluid_core.component ", " ("),
    }.items():
        broken = plugin.replace(right, wrong)
        assert broken != plugin
        with temporary_plugin(
            broken,
            folder=tmp_path / folder,
            distribution="fluid-logistic",
            version="0.1.0",
            entry_point="fluid_logistic",
        ):
            (failure,) = ComponentCatalog.discover(disabled=()).failures
        # The test installs one module where the guide has a package.
        said = str(failure).replace("'fluid_logistic'", "'fluid_logistic.plugin'").partition(end)[0]
        assert said in prose


def test_listing_works_without_torch(guide, tmp_path):
    """The plugin modules of the guide load without torch."""
    write_files(guide, tmp_path)
    search_path = os.pathsep.join(str(tmp_path / package / "src") for package in PACKAGES)
    someone = Reader(folder=tmp_path, site=search_path, python=sys.executable)
    program = "import sys, fluid_logistic.plugin, my_parts.plugin; print('torch' in sys.modules)"
    assert someone.run("-c", program).strip() == "False"


@pytest.mark.slow
def test_the_parts_of_the_guide_pass_the_conformance_kit(reader):
    """All tests of both packages run, and pass."""
    printed = reader.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *PACKAGES)
    assert int(re.search(r"(\d+) passed", printed)[1]) > 50
    assert "failed" not in printed


@pytest.mark.slow
def test_the_commands_of_the_guide_say_what_it_shows(reader, guide_text):
    """Listings, and models that `fluid train` would build or refuse, are as printed in the guide."""
    commands = shown(guide_text)
    listed = next(output for command, output in commands if command == "fluid components --kind head")
    printed = reader.run("-m", "fluid_core.cli", "components", "--kind", "head")
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert [line for line in lines if "logistic" in line and line in listed]
    disabling = next(one for one in commands if one[0].startswith("FLUID_DISABLED_PLUGINS="))
    printed = reader.run(
        "-m",
        "fluid_core.cli",
        *("components", "--kind", "head"),
        FLUID_DISABLED_PLUGINS=disabling[0].split()[0].partition("=")[2],
    )
    assert disabling[1].removeprefix("... ") in " ".join(printed.split())

    # Those of the section about broken plugins have to fail for a reason that is not there.
    trained = [
        (re.findall(r"[\w.]+=\S+", command), output)
        for command, output in commands
        if command.startswith("fluid train logistic.toml") and "Plugins that failed" not in output
    ]
    assert len(trained) > 3
    said = json.loads(reader.run("-c", BUILD, json.dumps([overrides for overrides, _ in trained])))
    refused = {" ".join(text.split()) for text in said if text}
    assert len(refused) == 2
    # What is installed besides decides which alternatives an error names.
    expected = [output.partition(" (installed")[0] for _, output in trained]
    assert all(any(text.startswith(output) for output in expected if output) for text in refused)


@pytest.mark.slow
def test_the_script_of_the_guide_runs(reader):
    """The model put together by hand learns, and draws a picture."""
    printed = reader.run("try_it.py")
    losses = [float(text) for text in re.findall(r"step +\d+: (-?[\d.]+) nats", printed)]
    assert len(losses) == 4
    assert losses[-1] < losses[0]
    assert printed.splitlines()[-1] == "(16, 16)"
