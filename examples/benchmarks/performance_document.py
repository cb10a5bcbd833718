"""Puts tables that scripts of this folder measure into docs/performance.md, between markers, and leaves the rest."""

import os
from collections.abc import Sequence
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; columns after the first are aligned to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def replace_section(name: str, text: str, *, document: Path = DOCUMENT) -> None:
    """Write `text` between the markers `<!-- name -->` and `<!-- end of name -->`, which must be there once."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    whole = document.read_text()
    before, found_begin, rest = whole.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise SystemExit(f"{document.name} has no place for this table: put the lines {begin} and {end} into it.")
    temporary = document.with_name(f".{document.name}.part")
    temporary.write_text(f"{before}{begin}\n{text}\n{end}{after}")
    os.replace(temporary, document)
