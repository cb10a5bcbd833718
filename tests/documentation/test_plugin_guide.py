"""docs/writing-a-plugin.md names every hook, and what it shows is valid."""

import ast
import importlib
import json
import re
import tomllib

import pytest

import fluid_core.testing
from fluid_core.discovery import HOOKS


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


def test_no_other_hook_is_documented(guide_text):
    """A hook that is gone is gone from the guide."""
    assert set(re.findall(r"\bfluid_register_\w+", guide_text)) <= set(HOOKS)


def test_every_kind_has_its_suite_in_the_guide(guide_text):
    """The guide tells which conformance suite tests which kind of component."""
    suites = [name for name in fluid_core.testing.__all__ if name.endswith("Suite")]
    assert len(suites) == len(HOOKS)
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
