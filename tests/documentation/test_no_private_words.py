"""Nothing in the repository points to the machine it was written on."""

import re
import subprocess

# Absolute paths below folders where people keep their own work. System paths such as /etc and /usr are the same
# everywhere; relative paths and parts of web addresses are no matter of this test.
PRIVATE_PATH = re.compile(r"(?<![\w.:/<>}~-])/(?:work|tmp|root|opt|home|Users|mnt|data|scratch)/[\w.]+[^\s\"'`)]*")

# file: what is allowed in it, and why.
ALLOWED = {
    "tests/documentation/test_no_private_words.py": "the examples below",
}


def private_paths(text):
    """Absolute paths of somebody's machine in a text, as (line, path)."""
    return [
        (number, match[0])
        for number, line in enumerate(text.splitlines(), start=1)
        for match in PRIVATE_PATH.finditer(line)
    ]


def test_no_file_names_a_path_of_a_machine(repository):
    """Every text file that is or would be committed works on other machines too."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=True,
    )
    names = [name for name in listed.stdout.split("\0") if name and (repository / name).is_file()]
    assert len(names) > 100
    found = []
    for name in names:
        content = (repository / name).read_bytes()
        if b"\0" in content or name in ALLOWED:
            continue
        found += [f"{name}, line {line}: {path}" for line, path in private_paths(content.decode())]
    assert found == []


def test_allowed_files_exist(repository):
    """An exception that is no longer needed goes away."""
    for name in ALLOWED:
        assert private_paths((repository / name).read_text()), f"{name} needs no exception"


def test_private_paths_are_found():
    """Paths in texts, strings and links count; relative paths, addresses and system paths do not."""
    text = "see /home/anna/fluid or '/tmp/x.png'\nrun ./tmp/x, a/tmp/x or https://example.org/home/page, /usr/bin/env\n"
    assert private_paths(text) == [(1, "/home/anna/fluid"), (1, "/tmp/x.png")]
