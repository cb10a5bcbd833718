"""Links and pictures of the documentation lead somewhere."""

import re
from pathlib import Path

import pytest

LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?(?P<target>[^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(?P<target>[^\s>]+)>?", re.MULTILINE)
HTML = re.compile(r"<(?:img|a|source)\b[^>]*?\b(?:src|srcset|href)=\"(?P<target>[^\"]+)\"")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def documents(repository):
    """Every Markdown file for readers."""
    found = {*repository.glob("*.md"), *repository.glob("docs/**/*.md")}
    found |= {*repository.glob("packages/*/*.md"), *repository.glob("examples/**/*.md")}
    return sorted(
        path for path in found if not any(part.startswith(".") for part in path.relative_to(repository).parts)
    )


def slug(heading):
    """The anchor of a heading: lower case, hyphens for spaces, no punctuation."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def broken_links(document, path, read):
    """Targets in a document that do not exist, as texts. `read` takes another Markdown file apart."""
    found = []
    for pattern in (LINK, REFERENCE, HTML):
        for match in pattern.finditer(document.prose):
            target = match["target"]
            if ELSEWHERE.match(target):
                continue
            file, _, anchor = target.partition("#")
            pointed = path.parent / file if file else path
            if file and not pointed.exists():
                found.append(target)
            elif anchor and pointed.suffix == ".md":
                other = read(pointed) if file else document
                if anchor not in map(slug, other.headings):
                    found.append(target)
    return found


def test_links_lead_somewhere(repository, document):
    """Every relative link, picture and anchor of the documentation exists."""
    paths = documents(repository)
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md"} <= {path.name for path in paths}
    broken = {
        str(path.relative_to(repository)): found
        for path in paths
        if (found := broken_links(document.read(path), path, document.read))
    }
    assert broken == {}


@pytest.mark.parametrize(
    ("text", "broken"),
    [
        ("[a](other.md) ![b](picture.png) [c](https://example.org/x) [d](mailto:a@b.c)", []),
        ("[a](missing.md) and ![b](no/picture.png)", ["missing.md", "no/picture.png"]),
        ("`[a](missing.md)` is code\n\n```text\n[b](missing.md)\n```\n", []),
        ('<img src="gone.svg" width="80">\n\n[r]: lost.md\n', ["lost.md", "gone.svg"]),
        ("# Two `words`!\n\n[a](#two-words) [b](#three-words) [c](other.md#the-end) [d](other.md#start)", None),
    ],
)
def test_broken_links_are_found(document, tmp_path, text, broken):
    """Relative links are looked up beside the document; code, addresses and mail are no links to check."""
    (tmp_path / "other.md").write_text("# The end\n")
    (tmp_path / "picture.png").write_bytes(b"")

    def read(path: Path):
        return document.parse(path.read_text())

    expected = ["#three-words", "other.md#start"] if broken is None else broken
    assert broken_links(document.parse(text), tmp_path / "page.md", read) == expected
