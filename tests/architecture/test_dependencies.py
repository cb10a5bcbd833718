"""What the distributions say they need, against what they import, and against what is tested."""

import importlib.metadata
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

DISTRIBUTIONS = ("fluid-core", "fluid-heads", "fluid-orders", "fluid-tokenizers")


@pytest.fixture(scope="module")
def projects(repository):
    """The project table of each pyproject.toml, by distribution."""
    return {
        name: tomllib.loads((repository / "packages" / name / "pyproject.toml").read_text())["project"]
        for name in DISTRIBUTIONS
    }


def required(project):
    """Requirements of a project by name, those of its extras included."""
    optional = [one for extra in project.get("optional-dependencies", {}).values() for one in extra]
    requirements = map(Requirement, [*project["dependencies"], *optional])
    return {canonicalize_name(one.name): one for one in requirements}


def test_plugins_accept_this_core_and_not_the_next(projects):
    """The range that plugins ask of core holds the present version and ends before the next minor one."""
    version = projects["fluid-core"]["version"]
    major, minor, _ = map(int, version.split("."))
    for name in DISTRIBUTIONS[1:]:
        needs = required(projects[name])
        accepted = needs["fluid-core"].specifier
        assert version in accepted
        assert f"{major}.{minor}.999" in accepted
        assert f"{major}.{minor + 1}.0" not in accepted
        assert not set(needs) & set(DISTRIBUTIONS[1:]), f"{name} depends on another plugin"
    assert not set(required(projects["fluid-core"])) & set(DISTRIBUTIONS)


def test_dependencies_are_tested_in_a_pinned_version(repository, projects):
    """Every dependency, optional ones too, has a version in constraints.txt that its range accepts."""
    lines = (repository / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    for name, project in projects.items():
        for needed, requirement in required(project).items():
            if needed not in DISTRIBUTIONS:
                assert needed in pinned, f"{name} needs {needed}: pin the version that is tested in constraints.txt"
                assert pinned[needed] in requirement.specifier, f"{name} does not accept the tested {needed}"


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_dependencies_are_what_is_imported(library, projects, distribution):
    """A distribution declares what its source imports, anywhere in it, and requires nothing else."""
    package = distribution.replace("-", "_")
    imported = {
        one.name.split(".")[0]
        for module in library.values()
        if module.name.split(".")[0] == package
        for one in module.imports()
    } - {*sys.stdlib_module_names, package}
    assert imported, f"no module of {package} was found"
    # Editable installs do not tell which packages they provide; ours are named alike.
    providers = importlib.metadata.packages_distributions() | {"fluid_core": ["fluid-core"]}
    needed = {canonicalize_name(providers[name][0]) for name in imported}
    declared = set(required(projects[distribution]))
    assert needed <= declared, f"imported but not declared: {sorted(needed - declared)}"
    mandatory = {canonicalize_name(Requirement(one).name) for one in projects[distribution]["dependencies"]}
    assert mandatory <= needed, f"required but never imported: {sorted(mandatory - needed)}"
