"""Items of a data set that could not be used: which, how many of how many, and when there are too many."""

from collections.abc import Iterable, Mapping

import attrs

from fluid_core.errors import SkippedItemError, TooManySkippedError

MOST_LISTED = 5000
"""Skipped items that are kept by name; further ones are only counted."""

FEWEST_SEEN = 200
"""A share of skipped items means nothing before so many were looked at."""

_NUM_SHOWN = 5


@attrs.frozen(kw_only=True)
class SkippedItem:
    """One item that was left out."""

    item: str
    """Which: its index, or its key in a stream."""

    kind: str
    """The sort of problem in a word, such as `unreadable` or `no-caption`."""

    reason: str
    """What is wrong, in words for people."""

    @classmethod
    def of(cls, item: object, error: SkippedItemError) -> "SkippedItem":
        """The item that raised `error`."""
        return cls(item=str(item), kind=error.kind, reason=str(error))


class SkippedItems:
    """What a loader has left out so far.

    An item that fails in every epoch is counted once, as long as no more than `MOST_LISTED` different ones have
    failed; beyond that, those that are not listed are counted each time.
    """

    def __init__(self, *, max_share: float = 1.0) -> None:
        self.max_share = max_share
        self.num_seen = 0
        """Items looked at, used or not."""

        self.num_failed = 0
        """How many of them could not be used, repeats included."""

        self._count = 0
        self._listed: dict[str, SkippedItem] = {}

    def __len__(self) -> int:
        """How many different items were left out."""
        return self._count

    @property
    def listed(self) -> Mapping[str, SkippedItem]:
        """The first `MOST_LISTED` of them, by item."""
        return self._listed

    def add(self, skipped: Iterable[SkippedItem], *, num_seen: int) -> None:
        """Count `num_seen` further items, of which `skipped` could not be used."""
        self.num_seen += num_seen
        for one in skipped:
            self.num_failed += 1
            if one.item in self._listed:
                continue
            self._count += 1
            if len(self._listed) < MOST_LISTED:
                self._listed[one.item] = one

    def check(self) -> None:
        """Raise `TooManySkippedError`, with examples, if the share that failed is above `max_share`."""
        if self.num_seen < FEWEST_SEEN or self.num_failed <= self.max_share * self.num_seen:
            return
        kinds: dict[str, int] = {}
        for one in self._listed.values():
            kinds[one.kind] = kinds.get(one.kind, 0) + 1
        counts = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda pair: -pair[1]))
        shown = "".join(f"\n  {one.reason}" for one in list(self._listed.values())[:_NUM_SHOWN])
        raise TooManySkippedError(
            f"Of the {self.num_seen} items read so far {self.num_failed} could not be used "
            f"({self.num_failed / self.num_seen:.1%}), more than training.max_skipped_share allows "
            f"({self.max_share:.1%}): {counts}. Repair the data or take such items out, or raise "
            f"training.max_skipped_share. Among them:{shown}"
        )
