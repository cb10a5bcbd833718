"""What looking for one failure came to: a verdict, in words and in figures."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import attrs


class Verdict(StrEnum):
    """What looking came to."""

    FOUND = "found"
    """The failure is there, beyond what so many pictures may show by chance."""

    NOT_FOUND = "not found"
    """It is not there, or so little of it that it does no harm."""

    UNDECIDED = "undecided"
    """So few pictures do not tell."""

    NOT_LOOKED = "not looked"
    """What it would show in is not there; the words say what is missing."""


@attrs.frozen(kw_only=True)
class Finding:
    """The verdict on one signature."""

    verdict: Verdict
    where: str = ""
    """Where it is, for headings, such as `at guidance 7.5`; nothing where there is one place only."""

    found: str
    """What was seen, in sentences with the figures that matter."""

    expected: str = ""
    """What a healthy run shows, and where the line is."""

    advice: tuple[str, ...] = ()
    """What to try, most promising first; nothing where nothing is wrong."""

    figures: Mapping[str, Any] = attrs.field(factory=dict)
    """All that was measured, as plain data."""

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "verdict": self.verdict.value,
            "where": self.where,
            "found": self.found,
            "expected": self.expected,
            "advice": list(self.advice),
            "figures": dict(self.figures),
        }


def not_looked(missing: str) -> Finding:
    """The finding where a signature has nothing to look at; `missing` says what, in a sentence."""
    return Finding(verdict=Verdict.NOT_LOOKED, found=missing)


def several(sentences: list[str]) -> str:
    """Sentences in a row, those that say nothing left out."""
    return " ".join(sentence for sentence in sentences if sentence)


def places(found: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> str:
    """Where those rows are, if there are others: `at guidance 3 and 7.5`."""
    return names_of(found) if found and len(rows) > 1 else ""


def names_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """The names of rows of figures about pictures drawn at one or several guidance scales, in words."""
    if any(row["guidance"] is None for row in rows):
        return "in the folder"
    *others, last = (f"{row['guidance']:g}" for row in rows)
    return f"at guidance {', '.join(others)}{' and ' if others else ''}{last}"


def percent(share: float) -> str:
    """A share as people read it: `12 %`, `1.2 %`, `0.12 %`."""
    value = 100.0 * share
    if abs(value) >= 9.95 or value == 0:
        return f"{value:.0f} %"
    return f"{value:.1f} %" if abs(value) >= 0.95 else f"{value:.2g} %"
