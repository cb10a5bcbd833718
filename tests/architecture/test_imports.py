"""Who imports whom, read from the source: the walls of the house.

Each rule is a function that returns what breaks it, in words. Each is tried on made-up modules first, so that a rule
that finds nothing is known to look.
"""

import ast
import graphlib
import json
import re
import subprocess
import sys

PLUGINS = ("fluid_gaussian_mixture", "fluid_heads", "fluid_orders", "fluid_tokenizers")
HEAVY = ("torch", "transformers", "PIL", "matplotlib", "sklearn", "numpy", "scipy", "safetensors")
PICKLING = ("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")
NAMES_THAT_SAY_NOTHING = ("utils", "util", "helpers", "helper", "common", "misc")
MOST_LINES = 500

# Parts of core that are used by the model, and so can not know it.
LOWER_PARTS = ("fluid_core.backbone", "fluid_core.data", "fluid_core.text")
UPPER_PARTS = ("fluid_core.generation", "fluid_core.model", "fluid_core.pipeline", "fluid_core.training")


def is_within(name, packages):
    """Whether `name` is one of `packages`, or inside one."""
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def crossed_walls(modules, *, inside, forbidden):
    """Imports of `forbidden` packages in modules `inside` others, by statement or by name in a text."""
    found = []
    for module in modules:
        if not is_within(module.name, inside):
            continue
        named = [(one.name, one.line) for one in module.imports()]
        named += [(text, line) for text, line in module.texts() if re.fullmatch(r"\w+(\.\w+)*", text)]
        found += [f"{module.name}, line {line}: {name}" for name, line in named if is_within(name, forbidden)]
    return found


def loads_heavy(library, name):
    """Chains by which loading module `name` loads a heavy package, such as `a -> b -> torch`."""
    chains, seen = [], {name}
    queue = [(one,) for one in (name, *library[name].ancestors) if one in library]
    while queue:
        chain = queue.pop(0)
        module = library[chain[-1]]
        heavy = {one.name.split(".")[0] for one in module.imports() if one.on_load} & set(HEAVY)
        chains += [" -> ".join([*chain, package]) for package in sorted(heavy)]
        for loaded in sorted(library.loaded_by(chain[-1]) - seen):
            seen.add(loaded)
            queue.append((*chain, loaded))
    return chains


def cycle(library, package):
    """A cycle of imports on load among the modules of `package`, as a list that ends where it starts; or none."""
    graph = {name: library.loaded_by(name) for name in library if is_within(name, [package])}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(reversed(error.args[1]))
    return []


def uses_of_pickle(module):
    """Places where a file could write or read pickles."""
    found = [f"line {one.line}: imports {one.name}" for one in module.imports() if is_within(one.name, PICKLING)]
    found += [
        f"line {one.line}: imports {one.name}" for one in module.imports() if one.name in ("torch.load", "torch.save")
    ]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("torch.load", "torch.save"):
            found.append(f"line {node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            found.append(f"line {node.value.lineno}: allow_pickle={ast.unparse(node.value)}")
    return found


def must_load_fast(module):
    """Whether a module is needed to list components or to read a configuration, and so must not load torch."""
    within = [module.name, *module.ancestors]
    return (
        (module.is_package and not module.name.startswith("fluid_core.testing."))
        or module.name.split(".")[-1] in ("plugin", "options")
        or module.name.removeprefix("fluid_core.")
        in ("errors", "components", "hookspecs", "catalog", "discovery", "cli")
        or any(name in ("fluid_core.configuration", "fluid_core.commands") for name in within)
    )


def test_core_imports_no_plugin(library):
    """Core knows plugins by what the catalog finds, never by name; not even for type checkers or in a text."""
    assert crossed_walls(library.values(), inside=["fluid_core"], forbidden=PLUGINS) == []


def test_plugins_import_core_and_not_each_other(library):
    """Every plugin stands on core alone."""
    for plugin in PLUGINS:
        others = [other for other in PLUGINS if other != plugin]
        assert crossed_walls(library.values(), inside=[plugin], forbidden=others) == []
        assert any(is_within(one.name, ["fluid_core"]) for one in library[f"{plugin}.plugin"].imports())


def test_crossed_walls_are_found(made_up):
    """The rule sees statements in functions and type-checking blocks, and modules named in texts."""
    library = made_up(
        {
            "fluid_core.a": "def f():\n    from fluid_heads import softmax\n",
            "fluid_core.b": "if TYPE_CHECKING:\n    import fluid_orders.raster\n",
            "fluid_core.c": "import_module('fluid_tokenizers.plugin')\n",
            "fluid_core.d": "'''A text about fluid_heads is no import.'''\nimport fluid_headstrong\n",
        }
    )
    assert crossed_walls(library.values(), inside=["fluid_core"], forbidden=PLUGINS) == [
        "fluid_core.a, line 2: fluid_heads",
        "fluid_core.a, line 2: fluid_heads.softmax",
        "fluid_core.b, line 2: fluid_orders.raster",
        "fluid_core.c, line 1: fluid_tokenizers.plugin",
    ]


def test_parts_of_the_model_do_not_know_it(library):
    """Data, backbone and text are used by model, generation, pipeline and training: the flow has one direction."""
    assert crossed_walls(library.values(), inside=LOWER_PARTS, forbidden=UPPER_PARTS) == []


def test_nothing_in_the_packages_uses_the_conformance_kit(library):
    """The kit needs pytest, which is no dependency: only tests import it."""
    outside = [module for module in library.values() if not is_within(module.name, ["fluid_core.testing"])]
    found = crossed_walls(outside, inside=["fluid_core", *PLUGINS], forbidden=["fluid_core.testing", "pytest"])
    assert found == []


def test_fast_modules_load_nothing_heavy_by_their_source(library):
    """No chain of imports leads from a module that must load fast to torch or its like."""
    fast = [module.name for module in library.values() if must_load_fast(module)]
    assert len(fast) > 20
    chains = [chain for name in fast for chain in loads_heavy(library, name)]
    assert chains == []


def test_fast_modules_load_nothing_heavy_in_fact(library):
    """The same seen from inside a fresh interpreter that loads all of them."""
    fast = sorted(module.name for module in library.values() if must_load_fast(module))
    program = (
        "import importlib, json, sys\n"
        "for name in json.loads(sys.argv[1]):\n"
        "    importlib.import_module(name)\n"
        "print(json.dumps(sorted(set(sys.modules) & set(json.loads(sys.argv[2])))))\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program, json.dumps(fast), json.dumps(HEAVY)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout) == []


def test_chains_to_heavy_packages_are_found(made_up):
    """The rule follows imports and the packages above them, but not those in functions or for type checkers."""
    library = made_up(
        {
            "p.options": "from p.deep.sizes import SIZES\ndef f():\n    import torch\n",
            "p.deep": "import torch.nn\n",
            "p.deep.sizes": "if TYPE_CHECKING:\n    from PIL import Image\n",
        }
    )
    assert loads_heavy(library, "p.options") == ["p.options -> p.deep -> torch"]
    assert loads_heavy(made_up({"p.a": "try:\n    from numpy import pi\nfinally:\n    pass\n"}), "p.a") == [
        "p.a -> numpy"
    ]


def test_core_has_no_cycle_of_imports(library):
    """Every module can be loaded first, and read before those that use it."""
    found = cycle(library, "fluid_core")
    assert not found, f"a cycle of imports: {' -> '.join(found)}"


def test_cycles_are_found(made_up):
    """The rule names the modules of a cycle; an import in a function is none."""
    sources = {"p.a": "from p import b\n", "p.b": "import p.c\n", "p.c": "from p.a import thing\n"}
    found = cycle(made_up(sources), "p")
    assert found[0] == found[-1]
    assert set(found) == {"p.a", "p.b", "p.c"}
    sources["p.c"] = "def f():\n    from p.a import thing\n"
    assert cycle(made_up(sources), "p") == []


def test_packages_do_not_load_their_own_modules_back(library):
    """A module imports from the modules beside it, not through the package they share: no cycle hides there."""
    found = [
        f"{module.name}: from {ancestor} import ..."
        for module in library.values()
        for ancestor in module.ancestors[1:]
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom)
        and node.module == ancestor
        and not all(f"{ancestor}.{alias.name}" in library for alias in node.names)
    ]
    assert found == []


def test_nothing_pickles(library, examples):
    """Files are safetensors and JSON: loading a model can not run code."""
    found = [
        f"{module.path.name}, {use}" for module in [*library.values(), *examples] for use in uses_of_pickle(module)
    ]
    assert found == []


def test_uses_of_pickle_are_found(made_up):
    """The rule sees imports, calls and names imported from torch."""
    source = "import pickle\nfrom torch import load\ntorch.save(x, f)\nnp.load(f, allow_pickle=True)\nnp.load(f)\n"
    assert uses_of_pickle(made_up({"p.a": source})["p.a"]) == [
        "line 1: imports pickle",
        "line 2: imports torch.load",
        "line 3: torch.save",
        "line 4: allow_pickle=True",
    ]


def test_names_say_what_is_inside(library, examples):
    """No module or folder has a name that fits anything."""
    parts = {part for name in library for part in name.split(".")} | {module.name for module in examples}
    assert parts & set(NAMES_THAT_SAY_NOTHING) == set()


def test_files_are_short(repository):
    """No Python file is longer than people like to read."""
    paths = [path for folder in ("packages", "examples", "tests") for path in (repository / folder).rglob("*.py")]
    assert len(paths) > 100
    lengths = {str(path.relative_to(repository)): len(path.read_text().splitlines()) for path in paths}
    assert {path: length for path, length in lengths.items() if length > MOST_LINES} == {}
