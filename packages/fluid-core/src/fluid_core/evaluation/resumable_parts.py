"""A long measurement cut into parts, each a file: shared by several processes, and continued after a kill.

What the parts are follows from the settings alone, never from how many processes there are or what is done already.
So the same tensors come out, to the byte, whoever computed them and however often the work was interrupted.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from torch import Tensor

from fluid_core.atomic_files import (
    check_writable,
    read_json,
    read_safetensors,
    remove_unfinished,
    write_json,
    write_safetensors,
)
from fluid_core.errors import CheckpointError, InvalidRequestError, OutputError
from fluid_core.sampling_run.together import together
from fluid_core.training.processes import Processes

_DESCRIPTION_FILE = "parts.json"


@attrs.frozen(kw_only=True, eq=False)
class ResumableParts:
    """Items 0 to `num_items - 1`, in parts of `part_size`, whose results are kept in `folder`.

    Raises `InvalidRequestError` for less than one item, or parts of less than one.
    """

    folder: Path
    description: Mapping[str, Any]
    """What decides the results, as plain data: a folder of other results is refused, not continued."""

    num_items: int
    part_size: int
    processes: Processes = attrs.field(factory=Processes)
    overwrite: bool = False
    """Let other results in the folder go, instead of refusing it."""

    def __attrs_post_init__(self) -> None:
        if self.num_items < 1 or self.part_size < 1:
            raise InvalidRequestError(
                f"Expected at least one item in parts of at least one, found {self.num_items} items in parts of "
                f"{self.part_size}."
            )

    @property
    def num_parts(self) -> int:
        """How many files there will be."""
        return -(-self.num_items // self.part_size)

    def computed(
        self, compute: Callable[[range], Mapping[str, Tensor]], *, told: Callable[[int, int], None] | None = None
    ) -> dict[str, Tensor]:
        """The results of all items: tensors by name, parts joined along the first axis, in all processes.

        `compute` gets the numbers of a part's items and returns tensors with the same names for every part, or nothing
        for a part without items; it is called for parts that are not done yet, each of the processes for its share.
        `told` hears how many parts of its own share a process has done. Raises `OutputError` if the folder holds other
        results, and what `compute` raises.
        """
        together(self.processes, self._begin)
        self.processes.wait()
        missing = [part for part in range(self.num_parts) if not self._file(part).is_file()]
        # Every process must have looked before any of them adds files.
        self.processes.wait()

        def own_share() -> None:
            share = missing[self.processes.rank :: self.processes.count]
            for done, part in enumerate(share, start=1):
                first = part * self.part_size
                numbers = range(first, min(first + self.part_size, self.num_items))
                write_safetensors(self._file(part), compute(numbers))
                if told is not None:
                    told(done, len(share))

        together(self.processes, own_share)
        self.processes.wait()
        found = together(self.processes, lambda: [self._read(part) for part in range(self.num_parts)])
        names = dict.fromkeys(name for part in found for name in part)
        return {name: torch.cat([part[name] for part in found if name in part]) for name in names}

    def _begin(self) -> None:
        if not self.processes.is_first:
            return
        file = self.folder / _DESCRIPTION_FILE
        now = json.loads(json.dumps({**self.description, "num_items": self.num_items, "part_size": self.part_size}))
        if file.exists():
            before = read_json(file)
            if before != now and self.overwrite:
                for path in self.folder.glob("*.safetensors"):
                    path.unlink()
            elif before != now:
                listed = "\n  ".join(_differences(before, now))
                raise OutputError(
                    f"{self.folder} holds results of another measurement, which can not be continued:\n  {listed}\n"
                    "Choose another folder (--out), or let what is there go (--overwrite)."
                )
        elif any(self.folder.glob("*.safetensors")):
            raise OutputError(
                f"Expected {self.folder} to be empty or to hold an earlier part of this measurement, found files and "
                f"no {_DESCRIPTION_FILE}. Choose another folder (--out), or delete that one."
            )
        check_writable(self.folder)
        remove_unfinished(self.folder)
        write_json(file, now)

    def _read(self, part: int) -> dict[str, Tensor]:
        try:
            return read_safetensors(self._file(part))
        except CheckpointError as error:
            raise OutputError(
                f"A part of the measurement is damaged: delete {self._file(part)}, and measure again to have it "
                "computed anew."
            ) from error

    def _file(self, part: int) -> Path:
        return self.folder / f"{part:06d}.safetensors"


def _differences(before: Any, now: Mapping[str, Any]) -> list[str]:
    if not isinstance(before, dict):
        return [f"{_DESCRIPTION_FILE} is not of this program"]
    names = dict.fromkeys([*before, *now])
    return [
        f"{name}: {json.dumps(before.get(name))} before, {json.dumps(now.get(name))} now"
        for name in names
        if before.get(name) != now.get(name)
    ]
