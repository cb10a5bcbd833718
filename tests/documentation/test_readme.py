"""The README does what it says: its Python runs, its commands exist.

Python blocks run one after the other in one namespace, in a folder like a fresh clone in which the commands of the
README were run before: where it says `make demo` or `fluid train`, there is a finished run. To take seconds, not
minutes, the configurations in that folder have few steps and a narrow model; nothing else is different.
"""

import ast
import json
import os
import re
import shlex
import shutil
import subprocess

import pytest
from typer.main import get_command

from fluid_core.commands.program import app
from fluid_core.configuration import load_config
from fluid_core.errors import FluidError

SHELLS = ("console", "bash", "sh", "shell")

SHORT = {
    "num_steps": "2",
    "batch_size": "4",
    "num_fit_images": "32",
    "num_validation_images": "4",
    "num_sampling_steps": "3",
    "timesteps_per_token": "1",
    "width": "32",
    "depth": "1",
    "num_heads": "2",
    "aligner_depth": "1",
}

RUNNER = """
import json, sys
blocks = json.load(open(sys.argv[1]))
namespace = {"__name__": "__main__"}
for line, text in blocks:
    print(f"block at line {line}", file=sys.stderr)
    # Empty lines in front, so that a traceback shows the line of the document.
    exec(compile("\\n" * (line - 1) + text, sys.argv[2], "exec"), namespace)
"""

TRAIN = """
import sys
from fluid_core import Trainer, load_config
Trainer(load_config(sys.argv[1]), sys.argv[2]).train()
"""


def commands(document):
    """Every command of the shell blocks as a list of words, with its line; comments and shown output left out."""
    found = []
    for block in document.code(*SHELLS):
        lines, number = block.text.splitlines(), 0
        while number < len(lines):
            line, first = lines[number].strip(), number
            while line.endswith("\\") and number + 1 < len(lines):
                number += 1
                line = f"{line[:-1].rstrip()} {lines[number].strip()}"
            number += 1
            # In a console, lines without a prompt are what the commands print.
            if any(one.startswith("$ ") for one in lines) and not line.startswith("$ "):
                continue
            lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
            lexer.whitespace_split = True
            words = []
            for word in [*lexer, "&&"]:
                if word and set(word) <= set(";&|()<>"):
                    found += [(words, block.line + first)] if words else []
                    words = []
                else:
                    words.append(word)
    return found


def why_wrong(words, repository):
    """What is wrong with a command, in words; empty if it can be run as it stands, or is not ours to check."""
    program, *arguments = words
    if program == "fluid":
        known = get_command(app).commands
        if arguments[:1] == ["--version"]:
            return ""
        if not arguments or arguments[0] not in known:
            return f"no such command among {sorted(known)}"
        if arguments[1:] == ["--help"]:
            return ""
        try:
            parsed = known[arguments[0]].make_context(arguments[0], arguments[1:]).params
            if arguments[0] == "train" and (repository / parsed["config"]).is_file():
                load_config(repository / parsed["config"], overrides=parsed["overrides"] or [])
        except FluidError as error:
            return str(error)
        except Exception as error:
            # The class of usage errors has moved between versions of typer; all of them explain themselves so.
            if not hasattr(error, "format_message"):
                raise
            return error.format_message()
    elif program == "make":
        targets = re.findall(r"^([\w-]+):(?!=)", (repository / "Makefile").read_text(), re.MULTILINE)
        unknown = [one for one in arguments if "=" not in one and not one.startswith("-") and one not in targets]
        if unknown:
            return f"no such target as {unknown[0]} among {targets}"
    elif re.fullmatch(r"(.*/)?python[\d.]*", program) and arguments and arguments[0].endswith(".py"):
        script = repository / arguments[0]
        if not script.is_file():
            return f"no file {arguments[0]}"
        options = set(re.findall(r"add_argument\(\s*\"(--[\w-]+)\"", script.read_text()))
        unknown = [one for one in arguments[1:] if one.startswith("--") and one.split("=")[0] not in options]
        if unknown:
            return f"no option {unknown[0]} among {sorted(options)}"
    return ""


def runs_made_by(document):
    """Folders in which the commands of a document leave a finished run, with the configuration of each."""
    made = {}
    for words, _ in commands(document):
        out = words[words.index("--out") + 1] if "--out" in words[:-1] else None
        if words == ["make", "demo"] or any(word.endswith("demo.py") for word in words[:2]):
            made[out or "runs/demo"] = "examples/configs/shapes.toml"
        elif words[:2] == ["fluid", "train"]:
            made[out or f"runs/{words[2].rsplit('/', 1)[-1].removesuffix('.toml')}"] = words[2]
    return made


def shortened(configuration):
    """A configuration that trains in seconds."""
    for key, value in SHORT.items():
        configuration = re.sub(rf"\b{key} = [\d.]+", f"{key} = {value}", configuration)
    if "num_fit_images" not in configuration:
        configuration = configuration.replace(
            "[training]\n", f"[training]\nnum_fit_images = {SHORT['num_fit_images']}\n"
        )
    return configuration


def clone(repository, folder):
    """A folder as after cloning, as far as a script sees it, with shortened configurations."""
    shutil.copytree(repository / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (folder / "examples").rglob("*.toml"):
        if path.parent.name == "configs":
            path.write_text(shortened(path.read_text()))


def run_python(python, folder, *arguments):
    """Python on a program text and arguments, in a folder."""
    return subprocess.run(
        [python, "-c", *map(str, arguments)],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"},
        capture_output=True,
        text=True,
        check=False,
    )


def run_blocks(python, document, folder):
    """Run the Python blocks of a document in a folder, all in one namespace."""
    blocks = [[block.line, block.text] for block in document.code("python") if not block.not_run]
    file = folder / ".blocks.json"
    file.write_text(json.dumps(blocks))
    return run_python(python, folder, RUNNER, file, document.name)


@pytest.mark.slow
def test_python_of_the_readme_runs(readme, repository, warm_start, tmp_path):
    """Every Python block runs to its end, after the commands that stand in the README."""
    assert readme.code("python"), "the README shows no Python"
    clone(repository, tmp_path)
    for folder, configuration in runs_made_by(readme).items():
        if (tmp_path / configuration).exists():
            trained = run_python(warm_start.python, tmp_path, TRAIN, configuration, folder)
            assert trained.returncode == 0, trained.stderr
    finished = run_blocks(warm_start.python, readme, tmp_path)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_python_that_is_not_run_compiles(readme):
    """A block that is left out says why in a comment above it, and is valid Python all the same."""
    for block in readme.code("python"):
        compile(block.text, f"README.md, line {block.line}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_commands_of_the_readme_exist(readme, repository):
    """Every `fluid`, `make` and `python` command of the README is understood as it stands."""
    found = commands(readme)
    wrong = [
        f"line {line}: {shlex.join(words)}: {why}" for words, line in found if (why := why_wrong(words, repository))
    ]
    assert wrong == []


def test_the_two_commands_are_in_the_readme(readme):
    """A newcomer finds `make demo` and `make test`, and both are targets of the Makefile."""
    run = [words for words, _ in commands(readme)]
    assert ["make", "demo"] in run
    assert ["make", "test"] in run


def test_snippets_of_a_made_up_readme(document, warm_start, tmp_path):
    """Blocks share one namespace, a block marked as not run is left out, and an error names the line."""
    text = """# Title

```python
numbers = [1, 2]
```

<!-- not run: needs a GPU -->
```python
raise RuntimeError("this must not run")
```

- in a list

  ```python
  open("sum.txt", "w").write(str(sum(numbers)))
  ```
"""
    parsed = document.parse(text, name="MADE_UP.md")
    assert [block.line for block in parsed.code("python")] == [4, 9, 15]
    assert parsed.code("python")[1].not_run == "needs a GPU"
    finished = run_blocks(warm_start.python, parsed, tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert (tmp_path / "sum.txt").read_text() == "3"

    broken = document.parse(text.replace("sum(numbers)", "sum(letters)"), name="MADE_UP.md")
    finished = run_blocks(warm_start.python, broken, tmp_path)
    assert finished.returncode != 0
    assert 'File "MADE_UP.md", line 15' in finished.stderr
    assert "NameError: name 'letters' is not defined" in finished.stderr


def test_commands_of_a_made_up_readme(document, repository):
    """Commands are found with and without a prompt, over several lines and chained; wrong ones are explained."""
    text = """
```console
$ git clone somewhere && cd fluid
$ make demo
a line that make prints
```

```bash
# a comment
fluid sample runs/demo "a red circle" \\
  --guidance 3    # two lines
fluid train examples/configs/shapes.toml training.num_steps=10 --out runs/other | tee log.txt
python examples/ablation.py --out runs/ablation --steps 10
```
"""
    parsed = document.parse(text)
    found = [words for words, _ in commands(parsed)]
    assert found == [
        ["git", "clone", "somewhere"],
        ["cd", "fluid"],
        ["make", "demo"],
        ["fluid", "sample", "runs/demo", "a red circle", "--guidance", "3"],
        ["fluid", "train", "examples/configs/shapes.toml", "training.num_steps=10", "--out", "runs/other"],
        ["tee", "log.txt"],
        ["python", "examples/ablation.py", "--out", "runs/ablation", "--steps", "10"],
    ]
    assert [line for _, line in commands(parsed)] == [3, 3, 4, 10, 12, 12, 13]
    assert [why_wrong(words, repository) for words in found] == [""] * len(found)
    assert runs_made_by(parsed) == {
        "runs/demo": "examples/configs/shapes.toml",
        "runs/other": "examples/configs/shapes.toml",
    }
    for command, why in {
        "fluid draw runs/demo": "no such command among ['cache', 'components', ",
        "fluid sample": "Missing ",
        'fluid sample runs/demo "a red circle" --guidnce 3': "No such option: --guidnce",
        'fluid sample runs/demo "a red circle" --steps many': "Invalid value for '--steps'",
        "fluid train examples/configs/shapes.toml training.num_stepz=3": "num_stepz",
        "make dinner": "no such target as dinner among ",
        "python examples/no_such.py": "no file examples/no_such.py",
        "python examples/ablation.py --stepz 10": "no option --stepz among ",
    }.items():
        assert why in why_wrong(shlex.split(command), repository)


def test_configurations_are_shortened(repository):
    """What makes a run long is changed, and only that."""
    short = shortened((repository / "examples" / "configs" / "shapes.toml").read_text())
    assert "num_steps = 2\n" in short
    assert "num_fit_images = 32\n" in short
    assert 'name = "flow"' in short
    assert "image_size = 32" in short
