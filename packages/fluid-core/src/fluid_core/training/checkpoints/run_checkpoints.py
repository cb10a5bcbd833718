"""The checkpoints of one run: saved in the layout that fits its processes, and the newest whole one loaded."""

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fluid_core.errors import CheckpointError, CheckpointMismatchError, OutputError
from fluid_core.training.checkpoints.file_records import check_files
from fluid_core.training.checkpoints.whole import (
    Progress,
    Trained,
    checkpoints,
    load_checkpoint,
    read_state,
    save_checkpoint,
)
from fluid_core.training.processes import Processes
from fluid_core.training.sharding.divided_tensors import is_divided
from fluid_core.training.step.moving_average import MovingAverage

if TYPE_CHECKING:
    from fluid_core.training.sharding.fully_shard import Sharding

DAMAGED = ".damaged"
"""What the name of a checkpoint ends with that was found damaged and passed over."""


class RunCheckpoints:
    """Saves and loads the state of a run below `folder`.

    Without `sharding` the first process writes everything before training goes on; with it every process writes its
    part in the background. `identities` says what the weights elsewhere are now; `tell` takes messages for people.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model: Trained,
        average: MovingAverage,
        optimizer: torch.optim.Optimizer,
        keep: int,
        tell: Callable[[str], None],
        processes: Processes | None = None,
        sharding: "Sharding | None" = None,
        identities: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._folder = folder
        self._run: dict[str, Any] = {"model": model, "average": average, "optimizer": optimizer}
        self._keep = keep
        self._tell = tell
        self._processes = processes or Processes()
        self._sharding = sharding
        self._identities = identities
        self._saving: Future[Any] | None = None

    def save(self, progress: Progress) -> None:
        """Save the state of the run; all processes must call this. With sharding, `finish` waits for its end.

        Raises `OutputError` if it can not be written; the checkpoints before stay.
        """
        self.finish()
        if self._sharding is None:
            if self._processes.is_first:
                save_checkpoint(
                    self._folder, progress=progress, keep=self._keep, identities=self._identities(), **self._run
                )
            return
        # Loading PyTorch's distributed checkpoints takes seconds.
        from fluid_core.training.checkpoints.sharded import start_saving

        self._saving = start_saving(
            self._folder,
            progress=progress,
            keep=self._keep,
            processes=self._processes,
            background=self._sharding.background,
            identities=self._identities(),
            **self._run,
        )

    def finish(self) -> None:
        """Wait until what is being saved is on disk. Raises `OutputError` if it could not be written."""
        saving, self._saving = self._saving, None
        if saving is None:
            return
        try:
            saving.result()
        # PyTorch collects what went wrong in every process in an error that is no Exception.
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise OutputError(
                f"A checkpoint in {self._folder} could not be written: {error}. The one before it is whole. Make room "
                "there, allow writing, and resume (--resume)."
            ) from error

    def load_newest(self) -> Progress:
        """Restore the newest checkpoint that is whole, and say how far the run had come: no steps without any.

        Damaged ones are reported, passed over, and put aside under another name. Raises `CheckpointError` if all are
        damaged, and `CheckpointMismatchError` for one of another model or with other weights elsewhere.
        """
        # All processes look at what the first one sees.
        names = self._processes.gather_json([path.name for path in checkpoints(self._folder)])[0]
        damaged: list[tuple[Path, str]] = []
        for name in reversed(names):
            path = self._folder / name
            progress, problem = self._try(path)
            if progress is not None:
                self._put_aside(damaged, instead=path)
                return progress
            damaged.append((path, problem))
        if damaged:
            path, problem = damaged[0]
            everything = f" None of the {len(damaged)} checkpoints is whole." if len(damaged) > 1 else ""
            raise CheckpointError(
                f"{problem}{everything} Or delete the folder {path} and resume again: the run then goes on from the "
                "checkpoint before it, or starts anew if there is none."
            )
        return Progress(step=0, seconds=0.0)

    def _try(self, path: Path) -> tuple[Progress | None, str]:
        """Load a checkpoint, or say in what way it is damaged."""
        part = {"part": self._processes.rank, "num_parts": self._processes.count}
        problem = _problem(lambda: check_files(path, read_state(path).get("files", {}), **part))
        if found := self._agreed(problem):
            return None, found
        progress: list[Progress] = []
        # Checkpoints of earlier versions have no records: what is wrong with their files shows when they are read.
        problem = _problem(lambda: progress.append(self._load(path)))
        if found := self._agreed(problem):
            return None, found
        return progress[0], ""

    def _agreed(self, problem: str | None) -> str | None:
        found = [one for one in self._processes.gather_json(problem) if one]
        return found[0] if found else None

    def _load(self, path: Path) -> Progress:
        identities = self._identities()
        divided = any(is_divided(parameter) for _, parameter in self._run["model"].named_parameters())
        if not divided and "layout" not in read_state(path):
            return load_checkpoint(path, identities=identities, **self._run)
        from fluid_core.training.checkpoints.sharded import load_any_checkpoint

        return load_any_checkpoint(path, identities=identities, **self._run)

    def _put_aside(self, damaged: list[tuple[Path, str]], *, instead: Path) -> None:
        if not self._processes.is_first:
            return
        for path, problem in damaged:
            aside = path.with_name(path.name + DAMAGED)
            number = 1
            while aside.exists():
                number += 1
                aside = path.with_name(f"{path.name}{DAMAGED}-{number}")
            path.rename(aside)
            self._tell(
                f"{problem} The run goes on from {instead.name}, the checkpoint before it. What is left of the damaged "
                f"one is in {aside}, which may be deleted."
            )


def _problem(action: Callable[[], Any]) -> str | None:
    try:
        action()
    except CheckpointMismatchError:
        raise
    except CheckpointError as error:
        return str(error)
    return None
