"""The `fluid` program from outside: `fluid components`, errors and exit codes."""

import importlib.metadata
import json
import os
import subprocess
import sys

import pytest

from fluid_core.catalog import ComponentCatalog
from fluid_core.testing.temporary_plugin import temporary_plugin


def fluid(*arguments, **environment):
    """Run the program in a process of its own, in a wide terminal."""
    return subprocess.run(
        [sys.executable, "-m", "fluid_core.cli", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "200", "FLUID_DISABLED_PLUGINS": ""} | environment,
    )


HEAD = """
    import attrs
    from fluid_core.components import HeadComponent
    from fluid_core.hookspecs import hookimpl

    print("hello from a plugin")

    @attrs.frozen(kw_only=True)
    class Options:
        pass

    @hookimpl
    def fluid_register_heads():
        return (
            HeadComponent(
                name="parts", summary="Any [bold] parts", options=Options, build=dict, predicts="binary"
            ),
        )
"""


def test_table_lists_every_component():
    """One row for each component, with kind, name, distribution, version and summary."""
    finished = fluid("components")
    assert finished.returncode == 0, finished.stderr
    lines = finished.stdout.splitlines()
    assert lines[0].split() == ["kind", "name", "distribution", "version", "summary"]
    rows = [line.split(maxsplit=4) for line in lines[1:]]
    for one in ComponentCatalog.discover().components():
        assert [one.kind, one.name, one.distribution, one.version, one.component.summary] in [
            [cell.strip() for cell in row] for row in rows
        ]


def test_json_is_for_programs():
    """The same as a document, restricted to one kind."""
    finished = fluid("components", "--kind", "order", "--json")
    document = json.loads(finished.stdout)
    assert list(document) == ["components", "failures", "conflicts", "disabled"]
    assert document["components"] == [
        {
            "kind": "order",
            "name": one.name,
            "distribution": one.distribution,
            "version": one.version,
            "summary": one.component.summary,
        }
        for one in ComponentCatalog.discover().components("order")
    ]
    assert document["components"]


def test_failures_conflicts_and_disabled_plugins_are_shown(tmp_path):
    """What is wrong stands below the table, in words and in JSON, and the exit code stays 0."""
    with (
        temporary_plugin("import no_such_package", folder=tmp_path, distribution="broken-parts"),
        temporary_plugin(HEAD, folder=tmp_path, distribution="first-parts"),
        temporary_plugin(HEAD, folder=tmp_path, distribution="second-parts"),
    ):
        environment = {"PYTHONPATH": str(tmp_path), "FLUID_DISABLED_PLUGINS": "fluid-orders,fluid-haeds"}
        finished = fluid("components", **environment)
        document = json.loads(fluid("components", "--json", **environment).stdout)
    assert finished.returncode == 0, finished.stderr
    cause = (
        "importing 'broken_parts' raised ModuleNotFoundError: No module named 'no_such_package' "
        f"({tmp_path / 'broken_parts.py'}, line 1)"
    )
    version = importlib.metadata.version("fluid-orders")
    assert finished.stdout.split("\n\n", maxsplit=1)[1] == (
        f"Plugins that failed:\n  'broken-parts' of broken-parts 1.0: {cause}\n\n"
        "Conflicts:\n"
        "  The head 'parts' is declared more than once: by first-parts 1.0 (plugin 'first-parts') and second-parts "
        "1.0 (plugin 'second-parts'). Disable one of them, for example with FLUID_DISABLED_PLUGINS=second-parts.\n\n"
        f"Disabled by FLUID_DISABLED_PLUGINS:\n  'fluid-orders' of fluid-orders {version}\n\n"
        "In FLUID_DISABLED_PLUGINS, but not installed:\n  'fluid-haeds'\n"
    )
    assert "Any [bold] parts" in finished.stdout
    assert document["failures"] == [
        {"plugin": "broken-parts", "distribution": "broken-parts", "version": "1.0", "cause": cause}
    ]
    assert document["conflicts"] == [
        {"kind": "head", "name": "parts", "distributions": ["first-parts", "second-parts"]}
    ]
    assert document["disabled"] == ["fluid-orders"]


LIGHT = """
import sys
from fluid_core import cli
sys.argv = ["fluid", "components"]
try:
    cli.main()
except SystemExit as ending:
    assert ending.code in (0, None), ending.code
heavy = {"torch", "transformers", "numpy", "scipy", "sklearn", "PIL", "matplotlib", "safetensors"} & set(sys.modules)
print("heavy modules:", sorted(heavy))
"""


def test_listing_imports_nothing_heavy():
    """Components are listed without torch or anything else that takes long to load."""
    finished = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    assert finished.stdout.splitlines()[-1] == "heavy modules: []"


def test_unknown_kind_is_an_error_in_one_line():
    """An error that Fluid explains is a message on stderr without a traceback, and exit code 1."""
    finished = fluid("components", "--kind", "heads")
    assert finished.returncode == 1
    assert finished.stdout == ""
    assert finished.stderr == (
        "There is no kind of component named 'heads'. Did you mean 'head'? The kinds are 'dataset', 'feature-network', "
        "'head', 'order', 'text-encoder', 'tokenizer'.\n"
    )


def test_wrong_usage_is_exit_code_2():
    """A command line that can not be understood is told apart from an error of the work itself."""
    finished = fluid("components", "--colour")
    assert finished.returncode == 2
    assert "--colour" in finished.stderr


def test_version():
    """`fluid --version` prints the version of the core."""
    assert fluid("--version").stdout == f"fluid {importlib.metadata.version('fluid-core')}\n"


def test_interruption_is_exit_code_130(tmp_path):
    """Ctrl-C ends the program as shells expect, without a traceback."""
    with temporary_plugin("raise KeyboardInterrupt", folder=tmp_path):
        finished = fluid("components", PYTHONPATH=str(tmp_path))
    assert finished.returncode == 130
    assert "Traceback" not in finished.stderr


def test_genuine_bug_keeps_its_traceback(monkeypatch):
    """An exception outside Fluid's family is not hidden by the program."""
    from fluid_core import cli
    from fluid_core.commands import program

    monkeypatch.setattr("sys.argv", ["fluid", "train"])
    monkeypatch.setattr(program, "app", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main()


def test_notes_of_an_error_are_shown(monkeypatch, capsys):
    """What was being done when an error arose is part of the message."""
    from fluid_core import cli
    from fluid_core.commands import program
    from fluid_core.errors import DataError

    def failing():
        error = DataError("There are no pictures.")
        error.add_note("This happened while building the dataset.")
        raise error

    monkeypatch.setattr("sys.argv", ["fluid", "train"])
    monkeypatch.setattr(program, "app", failing)
    with pytest.raises(SystemExit) as ending:
        cli.main()
    assert ending.value.code == 1
    assert capsys.readouterr().err == "There are no pictures.\nThis happened while building the dataset.\n"


def test_the_whole_program_lists_components_too():
    """`components` is answered before the other commands are loaded; through them it says the same."""
    from typer.testing import CliRunner

    from fluid_core.commands.program import app

    called = CliRunner().invoke(app, ["components", "--kind", "order", "--json"])
    assert called.exit_code == 0, called.output
    assert json.loads(called.stdout) == json.loads(fluid("components", "--kind", "order", "--json").stdout)
    assert "components" in CliRunner().invoke(app, ["--help"]).stdout


def test_listing_loads_neither_torch_nor_the_other_commands():
    """What makes it quick: neither is needed to look at what is installed."""
    program = (
        "import sys; sys.argv = ['fluid', 'components']\n"
        "from fluid_core.cli import main\n"
        "try: main()\n"
        "except SystemExit: print(sorted({'torch', 'typer', 'numpy', 'pydantic'} & set(sys.modules)), file=sys.stderr)"
    )
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert finished.stderr == "[]\n"
