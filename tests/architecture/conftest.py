"""The source of the library as data: which file imports what, read without importing anything."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs
import pytest

REPOSITORY = Path(__file__).parents[2]


@attrs.frozen(kw_only=True)
class Import:
    """One module that a statement may import. For `from a import b` there are two: `a` and, if it is one, `a.b`."""

    name: str
    line: int
    on_load: bool
    """Happens whenever the importing module is loaded: not in a function, and not for type checkers only."""


@attrs.frozen(kw_only=True)
class SourceModule:
    """A Python file of the library."""

    name: str
    path: Path
    is_package: bool
    tree: ast.Module

    @classmethod
    def parse(cls, name: str, source: str, *, path: Path = Path("made_up.py"), is_package: bool = False):
        """A module of the given text."""
        return cls(name=name, path=path, is_package=is_package, tree=ast.parse(source))

    @property
    def ancestors(self) -> tuple[str, ...]:
        """The packages this module is in, outermost first."""
        parts = self.name.split(".")
        return tuple(".".join(parts[:end]) for end in range(1, len(parts)))

    def imports(self) -> tuple[Import, ...]:
        """Everything this file imports, anywhere in it."""
        return tuple(self._imports(self.tree.body, on_load=True))

    def texts(self) -> Iterator[tuple[str, int]]:
        """Every string constant with its line: names of modules that are imported by name are among them."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value, node.lineno

    def _imports(self, nodes: list[ast.stmt] | list[ast.AST], *, on_load: bool) -> Iterator[Import]:
        for node in nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(name=alias.name, line=node.lineno, on_load=on_load)
            elif isinstance(node, ast.ImportFrom):
                source = self._absolute(node)
                yield Import(name=source, line=node.lineno, on_load=on_load)
                for alias in node.names:
                    yield Import(name=f"{source}.{alias.name}", line=node.lineno, on_load=on_load)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                yield from self._imports(node.body, on_load=False)
                yield from self._imports(node.orelse, on_load=on_load)
            else:
                is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
                yield from self._imports(list(ast.iter_child_nodes(node)), on_load=on_load and not is_function)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if node.level == 0:
            return node.module or ""
        package = self.name.split(".") if self.is_package else self.name.split(".")[:-1]
        base = package[: len(package) - (node.level - 1)]
        return ".".join([*base, *([node.module] if node.module else [])])


@attrs.frozen(kw_only=True)
class Library(Mapping):
    """Modules by name."""

    modules: dict[str, SourceModule]

    def __getitem__(self, name: str) -> SourceModule:
        return self.modules[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.modules)

    def __len__(self) -> int:
        return len(self.modules)

    def loaded_by(self, name: str) -> set[str]:
        """Modules of the library that are loaded with `name`: what it imports, and the packages these are in.

        The packages that `name` itself is in are left out: they are being loaded already.
        """
        module = self[name]
        found = {one.name for one in module.imports() if one.on_load} & set(self)
        packages = {ancestor for one in found for ancestor in self[one].ancestors} & set(self)
        return (found | (packages - set(module.ancestors))) - {name}


def read_library(folders: list[Path]) -> Library:
    """All modules below source folders (those that hold import packages)."""
    modules = {}
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            parts = list(path.relative_to(folder).with_suffix("").parts)
            is_package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if is_package else parts)
            modules[name] = SourceModule.parse(name, path.read_text(), path=path, is_package=is_package)
    return Library(modules=modules)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def library() -> Library:
    """The four packages, and the plugin among the examples, which lives by the same rules."""
    return read_library(sorted([*REPOSITORY.glob("packages/*/src"), *REPOSITORY.glob("examples/*/src")]))


@pytest.fixture(scope="session")
def examples() -> list[SourceModule]:
    """Every Python file below examples."""
    return [
        SourceModule.parse(path.stem, path.read_text(), path=path)
        for path in sorted((REPOSITORY / "examples").rglob("*.py"))
    ]


@pytest.fixture
def made_up():
    """A function that makes a library of modules given as name=text, to try the rules on."""

    def make(sources: dict[str, str]) -> Library:
        packages = {ancestor for name in sources for ancestor in SourceModule.parse(name, "").ancestors}
        texts = dict.fromkeys(sorted(packages), "") | sources
        return Library(
            modules={name: SourceModule.parse(name, text, is_package=name in packages) for name, text in texts.items()}
        )

    return make
