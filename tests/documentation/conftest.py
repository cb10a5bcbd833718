"""Reads Markdown: blocks of code with their language and line, and text without code."""

import re
import textwrap
from pathlib import Path

import attrs
import pytest

REPOSITORY = Path(__file__).parents[2]

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w+-]*)(?P<rest>[^`\n]*)$")
_NOT_RUN = re.compile(r"<!-- not run: (?P<reason>\S.*) -->")
_FILE = re.compile(r"^\*\*`(?P<file>[\w./-]+)`\*\*$")


@attrs.frozen(kw_only=True)
class Block:
    """A fenced block of code."""

    language: str
    text: str
    line: int
    """Line of the document on which the code begins, from 1."""

    not_run: str = ""
    """Why the block is only compiled: the text of a comment `<!-- not run: reason -->` right above it."""

    file: str = ""
    """The file that the block is the whole text of: a line with its path alone, bold and as code, right above it."""


@attrs.frozen(kw_only=True)
class Document:
    """A Markdown document, taken apart."""

    name: str
    prose: str
    """The text with blocks of code and inline code blanked out, line for line."""

    blocks: tuple[Block, ...]

    headings: tuple[str, ...]
    """Headings without marks."""

    @classmethod
    def parse(cls, text: str, *, name: str = "made up") -> "Document":
        """A document of the given text. Fails if a block is not closed."""
        prose: list[str] = []
        blocks: list[Block] = []
        headings: list[str] = []
        lines = text.splitlines()
        number = 0
        while number < len(lines):
            opening = _FENCE.match(lines[number])
            if opening is None:
                if heading := re.match(r"#{1,6}\s+(.*?)\s*#*$", lines[number]):
                    headings.append(heading[1].replace("`", ""))
                prose.append(re.sub(r"`[^`]*`", "``", lines[number]))
                number += 1
                continue
            end = number + 1
            while end < len(lines) and lines[end].strip() != opening["ticks"]:
                end += 1
            assert end < len(lines), f"{name}, line {number + 1}: the block of code is never closed"
            above = next((line for line in reversed(lines[:number]) if line.strip()), "")
            comment, file = _NOT_RUN.search(above), _FILE.match(above.strip())
            blocks.append(
                Block(
                    language=opening["language"],
                    text=textwrap.dedent("\n".join(lines[number + 1 : end])) + "\n",
                    line=number + 2,
                    not_run=comment["reason"] if comment else "",
                    file=file["file"] if file else "",
                )
            )
            prose += [""] * (end + 1 - number)
            number = end + 1
        return cls(name=name, prose="\n".join(prose), blocks=tuple(blocks), headings=tuple(headings))

    @classmethod
    def read(cls, path: Path) -> "Document":
        """A document of the repository."""
        return cls.parse(path.read_text(), name=str(path.relative_to(REPOSITORY)))

    def code(self, *languages: str) -> list[Block]:
        """Blocks in these languages."""
        return [block for block in self.blocks if block.language in languages]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def document():
    """The class that takes Markdown apart: `document.parse(text)`, `document.read(path)`."""
    return Document


@pytest.fixture(scope="session")
def readme(repository) -> Document:
    """The README of the repository."""
    return Document.read(repository / "README.md")
