"""Trains and measures one run of a study, in a process of its own: `python -m fluid_core.study.one_run`."""

import argparse
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fluid_core.configuration import load_config
from fluid_core.configuration.structuring import structure
from fluid_core.errors import CheckpointError, FluidError
from fluid_core.study.settings import StudyEvaluation


def main() -> None:
    """Continue the run where it stopped. What it can not do it says in a message, with exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--evaluation", required=True, help="JSON of the settings")
    parser.add_argument("--sweeps", action="store_true")
    arguments = parser.parse_args()
    evaluation = structure(json.loads(arguments.evaluation), StudyEvaluation, subject="evaluation of a study")
    _end_with(os.getppid())
    try:
        with _alone(arguments.out):
            train_and_measure(arguments.config, arguments.out, evaluation, sweeps=arguments.sweeps)
    except FluidError as error:
        print("\n".join([str(error), *getattr(error, "__notes__", ())]), file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from None


def train_and_measure(config_file: Path, run: Path, evaluation: StudyEvaluation, *, sweeps: bool) -> None:
    """Bring a run to its end and measure it. What is done already is not done again. Raises as `Trainer` and
    `measure_run` do.
    """
    from fluid_core.study.measuring import measure_run
    from fluid_core.training.trainer import Trainer

    config = load_config(config_file)
    assert config.training is not None
    if not (run / "model").is_dir():
        trainer = Trainer(config, run, resume=True)
        result = trainer.train()
        if not (run / "model").is_dir():
            raise CheckpointError(f"The run in {run} was stopped at step {result.num_steps}; it goes on next time.")
    measure_run(run, evaluation, sweeps=sweeps, device=config.training.device)


def _end_with(parent: int) -> None:
    """Ask this process to stop once the one that started it is gone: nobody would know that it still runs."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _alone(run: Path) -> Iterator[None]:
    """Hold a run for the length of a block. Raises `CheckpointError` if another process holds it."""
    try:
        import fcntl
    except ImportError:
        # No such locks on this system: there the study's processes are trusted to be the only ones.
        yield
        return
    run.parent.mkdir(parents=True, exist_ok=True)
    with (run.parent / f".{run.name}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CheckpointError(
                f"Another process works on the run in {run}. Wait for it, or end it, before starting this one."
            ) from None
        yield


if __name__ == "__main__":
    main()
