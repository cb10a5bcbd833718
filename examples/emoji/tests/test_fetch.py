"""Fetching, with a made-up npm that packs tiny packages: whole or not at all, and resumed where it was."""

import io
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import attrs
import pytest
from fluid_emoji.emoji_folder import default_folder, read_emoji_folder
from fluid_emoji.fetch import fetch, main
from fluid_emoji.sources import FLUENT, NOTO, SOURCES
from PIL import Image

from fluid_core.errors import DataError

# As many pictures as the made-up packages have of the groups that are kept.
SMALL_SOURCES = tuple(attrs.evolve(source, num_pictures=2 if source.style else 0) for source in SOURCES)

METADATA = [
    {
        "name": name,
        "unified": code_point.upper(),
        "image": f"{code_point}.png",
        "category": category,
        "subcategory": "some",
        "sort_order": order,
    }
    for order, (name, code_point, category) in enumerate(
        [
            ("HOT PEPPER", "1f336-fe0f", "Food & Drink"),
            ("RED APPLE", "1f34e", "Food & Drink"),
            ("FLAG", "1f1e6", "Flags"),
        ]
    )
]
KEYWORDS = {"🌶️": ["hot_pepper", "food", "spicy"], "🍎": ["red_apple", "fruit", "school"]}

NPM = """#!{python}
import os, pathlib, shutil, signal, sys
command, package, *_ = sys.argv[1:]
assert command == "pack"
name = package.rpartition("@")[0].removeprefix("@").replace("/", "-")
with open({log!r}, "a") as log:
    log.write(package + "\\n")
failing = pathlib.Path({folder!r}) / "failing.txt"
if failing.is_file() and failing.read_text() == name:
    print("npm error network request to the registry failed", file=sys.stderr)
    sys.exit(1)
killing = pathlib.Path({folder!r}) / "killing.txt"
if killing.is_file() and killing.read_text() == name:
    pathlib.Path("half.tgz").write_bytes(b"half a tarball")
    os.kill(os.getppid(), signal.SIGKILL)
    sys.exit(1)
shutil.copy(pathlib.Path({folder!r}) / (name + ".tgz"), name + "-1.2.3.tgz")
"""


def picture(color: str, kind: str) -> bytes:
    """A small picture file."""
    content = io.BytesIO()
    Image.new("RGBA", (64, 64), color).save(content, format=kind)
    return content.getvalue()


def write_package(path: Path, files: dict[str, bytes]) -> None:
    """An npm tarball."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def registry(tmp_path):
    """A folder with a program `npm` and the packages it packs."""
    folder = tmp_path / "registry"
    folder.mkdir()
    points = [entry["image"].removesuffix(".png") for entry in METADATA]
    metadata = {"emoji.json": json.dumps(METADATA).encode(), "LICENSE": b"Do good."}
    for source in SOURCES:
        kind = "WEBP" if source is FLUENT else "PNG"
        files = {f"{source.pictures}/{point}.{kind.lower()}": picture("red", kind) for point in points}
        if source.style is None:
            files = {"dist/emoji-en-US.json": json.dumps(KEYWORDS).encode()}
        elif source is not FLUENT:
            files |= metadata
        files |= {"../escaped.txt": b"no", "index.js": b"no"}
        write_package(folder / f"{source.package.removeprefix('@').replace('/', '-')}.tgz", files)
    program = folder / "npm"
    program.write_text(NPM.format(python=sys.executable, log=str(folder / "log.txt"), folder=str(folder)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


def packed(registry: Path) -> list[str]:
    """What npm was asked for, in order."""
    log = registry / "log.txt"
    return log.read_text().split() if log.is_file() else []


def quietly(_text: str) -> None:
    """Say nothing."""


def test_fetches_a_plain_layout(registry, tmp_path):
    """Pictures by style and code point, an index with plain names and keywords, and the attribution; nothing else."""
    folder = tmp_path / "cache" / "emoji"
    fetched = fetch(folder, npm=str(registry / "npm"), sources=SMALL_SOURCES, say=quietly)
    assert fetched == read_emoji_folder(folder)
    assert [one.name for one in fetched.emoji] == ["hot pepper", "red apple"]
    assert [one.keywords for one in fetched.emoji] == [("food", "spicy"), ("fruit", "school")]
    assert all(one.styles == ("noto", "twemoji", "fluent") for one in fetched.emoji)
    with Image.open(folder / "fluent" / "1f336-fe0f.png") as opened:
        assert (opened.format, opened.mode, opened.size) == ("PNG", "RGBA", (64, 64))
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    pictures = [f"{style}/{point}.png" for style in ("fluent", "noto", "twemoji") for point in ("1f336-fe0f", "1f34e")]
    licences = ["licences/emoji-datasource-google.txt", "licences/emoji-datasource-twitter.txt"]
    assert found == sorted(["ATTRIBUTION.txt", "index.json", *licences, *pictures])
    attribution = (folder / "ATTRIBUTION.txt").read_text()
    for source in SOURCES:
        assert source.specifier in attribution
        assert source.attribution in attribution
    assert packed(registry) == [source.specifier for source in SOURCES]
    # Downloads are gone, and nothing of a package was written by its own name.
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["emoji"]


def test_a_filled_folder_is_left_alone(registry, tmp_path):
    """A second call asks npm for nothing, unless it is told to."""
    npm, folder = str(registry / "npm"), tmp_path / "emoji"
    fetch(folder, npm=npm, sources=SMALL_SOURCES, say=quietly)
    fetch(folder, npm=npm, sources=SMALL_SOURCES, say=quietly)
    assert len(packed(registry)) == 4
    fetch(folder, npm=npm, sources=SMALL_SOURCES, say=quietly, again=True)
    assert len(packed(registry)) == 8


def test_a_failed_download_goes_on_where_it_was(registry, tmp_path):
    """What npm said is shown, no folder appears, and the next call asks only for what is missing."""
    (registry / "failing.txt").write_text("lobehub-fluent-emoji-3d")
    folder = tmp_path / "emoji"
    with pytest.raises(DataError, match="registry failed") as raised:
        fetch(folder, npm=str(registry / "npm"), sources=SMALL_SOURCES, say=quietly)
    assert "Is this machine online" in str(raised.value)
    assert not folder.exists()
    (registry / "failing.txt").unlink()
    (registry / "log.txt").unlink()
    fetch(folder, npm=str(registry / "npm"), sources=SMALL_SOURCES, say=quietly)
    assert packed(registry) == [SOURCES[2].specifier, SOURCES[3].specifier]


def test_a_killed_fetch_leaves_nothing_that_looks_whole(registry, tmp_path):
    """Killed in the middle of a download, it leaves no folder and no half tarball that counts; then it goes on."""
    (registry / "killing.txt").write_text("emoji-datasource-twitter")
    folder = tmp_path / "emoji"
    killed = subprocess.run(
        [sys.executable, "-m", "fluid_emoji.fetch", "--cache", str(folder), "--npm", str(registry / "npm")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    assert not folder.exists()
    assert [path.name for path in (tmp_path / ".emoji.downloads").glob("*.tgz")] == [
        f"{NOTO.package}-{NOTO.version}.tgz"
    ]
    (registry / "killing.txt").unlink()
    fetch(folder, npm=str(registry / "npm"), sources=SMALL_SOURCES, say=quietly)
    assert len(read_emoji_folder(folder).emoji) == 2
    assert packed(registry).count(NOTO.specifier) == 1


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({}, "Expected 2 pictures .* found 0"),
        ({f"{FLUENT.pictures}/{point}.webp": b"no" for point in ("1f34e", "1f336-fe0f")}, "damaged picture"),
    ],
)
def test_a_package_that_is_not_what_it_should_be(registry, tmp_path, files, problem):
    """Missing and damaged pictures are errors, and no folder appears."""
    write_package(registry / "lobehub-fluent-emoji-3d.tgz", files)
    with pytest.raises(DataError, match=problem):
        fetch(tmp_path / "emoji", npm=str(registry / "npm"), sources=SMALL_SOURCES, say=quietly)
    assert not (tmp_path / "emoji").exists()


def test_a_damaged_download_is_named(registry, tmp_path):
    """A tarball cut short says which file to delete."""
    path = registry / "emojilib.tgz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"emojilib-4\.0\.3\.tgz is damaged"):
        fetch(tmp_path / "emoji", npm=str(registry / "npm"), sources=SMALL_SOURCES, say=quietly)


def test_without_npm(tmp_path, capsys):
    """The command says what to install and ends with exit code 1."""
    assert main(["--cache", str(tmp_path / "emoji"), "--npm", "no-such-npm"]) == 1
    assert "Install Node.js" in capsys.readouterr().err


def test_other_files_are_not_replaced(registry, tmp_path):
    """A folder of something else is refused and kept."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="holds other files"):
        fetch(tmp_path, npm=str(registry / "npm"), sources=SMALL_SOURCES, say=quietly)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_the_folder_can_be_chosen(monkeypatch, tmp_path):
    """The variable wins over the platform's cache folder."""
    monkeypatch.setenv("FLUID_EMOJI_FOLDER", str(tmp_path))
    assert default_folder() == tmp_path
    monkeypatch.delenv("FLUID_EMOJI_FOLDER")
    assert default_folder().parts[-2:] == ("fluid", "emoji")
