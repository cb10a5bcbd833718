"""A diagnosis as people read it."""

import textwrap
from collections.abc import Iterator, Mapping

from fluid_core.diagnosis.finding import Finding, Verdict

_WIDTH = 100
_INDENT = "    "
_MARKS = {
    Verdict.FOUND: "FOUND",
    Verdict.NOT_FOUND: "not found",
    Verdict.UNDECIDED: "undecided",
    Verdict.NOT_LOOKED: "not looked for",
}


def report_lines(findings: Mapping[str, Finding]) -> Iterator[tuple[Verdict | None, str]]:
    """Lines of the report; those that name a signature come with its verdict."""
    for name, finding in findings.items():
        yield finding.verdict, _heading(name, finding)
        yield from ((None, line) for line in _paragraph(finding.found))
        if finding.verdict is Verdict.FOUND:
            yield from ((None, line) for line in _paragraph(finding.expected, "Expected: "))
            for index, advice in enumerate(finding.advice):
                yield from ((None, line) for line in _paragraph(advice, "Try: " if index == 0 else "Or: "))
        yield None, ""
    yield None, _summary(findings)


def _heading(name: str, finding: Finding) -> str:
    return f"{name}: {_MARKS[finding.verdict]}{' ' * bool(finding.where)}{finding.where}"


def _summary(findings: Mapping[str, Finding]) -> str:
    def names(verdict: Verdict) -> list[str]:
        chosen = {name: finding.where for name, finding in findings.items() if finding.verdict is verdict}
        return [f"{name} ({where})" if where else name for name, where in chosen.items()]

    found = names(Verdict.FOUND)
    words = [f"Found: {', '.join(found)}." if found else "Nothing found."]
    if open_ones := names(Verdict.UNDECIDED):
        words.append(f"Undecided: {', '.join(open_ones)}.")
    if left := names(Verdict.NOT_LOOKED):
        words.append(f"Not looked for: {', '.join(left)}.")
    return " ".join(words)


def _paragraph(text: str, head: str = "") -> list[str]:
    return textwrap.wrap(
        head + text,
        width=_WIDTH,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT + " " * len(head),
        break_on_hyphens=False,
        break_long_words=False,
    )
