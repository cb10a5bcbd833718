"""Which pictures a run left out, in a file of the run folder, and a line about them for the person who trains."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import attrs

from fluid_core.atomic_files import can_not_write, write_bytes
from fluid_core.data.skipped_items import MOST_LISTED, SkippedItem, SkippedItems
from fluid_core.training.processes import Processes
from fluid_core.training.sight.progress import TrainingProgress


class SkippedFile:
    """Appends to `skipped.jsonl`: one object per item with `item`, `kind`, `reason` and `when`.

    Each item is listed once, also over resumed runs, and at most `MOST_LISTED` in all. Of several processes, each has
    a file of its own, such as `skipped-1.jsonl`. There is no file as long as nothing was skipped.
    """

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.path = folder / ("skipped.jsonl" if processes.is_first else f"skipped-{processes.rank}.jsonl")
        self._known: set[tuple[str, str]] = set()
        if self.path.exists():
            rows = list(_whole_rows(self.path.read_text(encoding="utf-8", errors="replace")))
            # A line that a kill cut short would spoil the next one.
            write_bytes(self.path, "".join(json.dumps(row) + "\n" for row in rows).encode())
            self._known = {(str(row.get("when")), str(row.get("item"))) for row in rows}

    def add(self, skipped: Iterable[SkippedItem], *, when: str) -> None:
        """List items that are not listed yet; `when` is `training` or `validation`."""
        new = [one for one in skipped if (when, one.item) not in self._known][: MOST_LISTED - len(self._known)]
        if not new:
            return
        try:
            with self.path.open("a", encoding="utf-8") as file:
                for one in new:
                    file.write(json.dumps({**attrs.asdict(one), "when": when}) + "\n")
                    self._known.add((when, one.item))
        except OSError as error:
            raise can_not_write(self.path, error) from error


def _whole_rows(text: str) -> Iterable[dict[str, object]]:
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def note_skipped(progress: TrainingProgress, skipped: SkippedItems | Sequence[SkippedItem], when: str) -> None:
    """One line on how many pictures were left out, with the reason of one; nothing if none were."""
    if len(skipped):
        listed = list(skipped.listed.values()) if isinstance(skipped, SkippedItems) else skipped
        progress.note(f"skipped {len(skipped)} pictures {when} that can not be used, such as: {listed[0].reason}")
