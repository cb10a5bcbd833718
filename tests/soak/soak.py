"""Kills a training run over and over, at random moments and while it writes checkpoints, and resumes it.

It must end with the losses and weights of a run that nobody disturbed: to the bit.

    python tests/soak/soak.py --kills 20 --out runs/soak
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import attrs
import torch
from safetensors.torch import load_file

from fluid_core import FluidConfig
from fluid_core.configuration import BackboneConfig, ComponentChoice, TrainingConfig, config_to_json
from fluid_core.training.sight.metrics import OF_THE_MACHINE, read_metrics

TRAIN = """
import sys
from pathlib import Path
from fluid_core import Trainer
from fluid_core.configuration import config_from_json

config, folder = sys.argv[1:]
Trainer(config_from_json(Path(config).read_text(), source="soak"), folder, resume=True).train()
"""

_POLL_SECONDS = 0.001
_LONGEST_RUN_SECONDS = 900.0


@attrs.frozen(kw_only=True)
class Kind:
    """One way to train: in how many processes, and whether weights are divided among them."""

    num_processes: int
    sharding: str = "none"

    def __str__(self) -> str:
        processes = "one process" if self.num_processes == 1 else f"{self.num_processes} processes"
        return processes if self.sharding == "none" else f"{processes} with {self.sharding} sharding"


KINDS = (Kind(num_processes=1), Kind(num_processes=2), Kind(num_processes=2, sharding="full"))


@attrs.define
class Report:
    """What was done to a run, and how far from the undisturbed one it ended."""

    kills: dict[str, int] = attrs.field(factory=dict)
    """By what the run was doing."""

    half_written: int = 0
    """Kills that left an unfinished checkpoint behind."""

    steps_lost: int = 0
    """Steps that had to be taken again."""

    different_tensors: int = 0
    largest_difference: float = 0.0
    different_rows: int = 0

    @property
    def same(self) -> bool:
        """Whether the run ended as if nothing had happened."""
        return self.different_tensors == 0 and self.different_rows == 0


def soak_config(kind: Kind, *, num_steps: int, checkpoint_every: int = 4) -> FluidConfig:
    """A small model with everything in it that is random in training: dropped captions, dropout, orders, noise."""
    return FluidConfig(
        tokenizer=ComponentChoice(name="pixel-patches", options={"image_size": 24, "patch_size": 8}),
        text_encoder=ComponentChoice(name="bytes", options={"width": 16}),
        order=ComponentChoice(name="random"),
        head=ComponentChoice(name="diffusion", options={"depth": 1}),
        backbone=BackboneConfig(size="debug", dropout=0.1),
        data=ComponentChoice(name="shapes", options={"num_examples": 30, "num_validation_examples": 10}),
        training=TrainingConfig(
            num_steps=num_steps,
            batch_size=4,
            schedule="cosine",
            warmup_steps=5,
            learning_rate=1e-3,
            log_every=1,
            checkpoint_every=checkpoint_every,
            sample_every=0,
            num_validation_images=0,
            num_fit_images=12,
            device="cpu",
            sharding=kind.sharding,  # type: ignore[arg-type]
        ),
    )


class Process(Protocol):
    """What is needed of a process."""

    def poll(self) -> int | None:
        """The exit code, or nothing."""

    def wait(self) -> int:
        """The exit code, once there is one."""

    def send_signal(self, number: int) -> None:
        """Send a signal."""


def start_python(arguments: list[str], environment: dict[str, str], log: Path) -> Process:
    """Start Python with arguments; what it prints is added to a file."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, *arguments], env={**os.environ, **environment}, stdout=file, stderr=file
        )


class Run:
    """The processes of one attempt at a run in `folder`."""

    def __init__(self, config: Path, folder: Path, num_processes: int, start: Callable[..., Process]) -> None:
        script = config.with_name("train.py")
        script.write_text(TRAIN)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._log = folder.with_suffix(".log")
        self._processes = [
            start(
                [str(script), str(config), str(folder)],
                {
                    "OMP_NUM_THREADS": "1",
                    "WORLD_SIZE": str(num_processes),
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "LOCAL_WORLD_SIZE": str(num_processes),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                },
                self._log,
            )
            for rank in range(num_processes)
        ]

    @property
    def over(self) -> bool:
        """Whether all processes have ended. Raises `RuntimeError` if one of them failed by itself."""
        codes = [process.poll() for process in self._processes]
        if any(code not in (None, 0) for code in codes):
            self.kill(random.Random(0))
            raise RuntimeError(f"A process ended with {codes}; see {self._log}.")
        return all(code == 0 for code in codes)

    def kill(self, chance: random.Random) -> None:
        """Kill all processes with SIGKILL, in any order and not all at the same time."""
        for process in chance.sample(self._processes, len(self._processes)):
            process.send_signal(signal.SIGKILL)
            time.sleep(chance.choice([0.0, 0.0, 0.05, 0.3]) if len(self._processes) > 1 else 0.0)
        for process in self._processes:
            process.wait()


def soak(
    folder: Path,
    kind: Kind,
    *,
    num_kills: int,
    num_steps: int,
    seed: int = 0,
    tell: Callable[[str], None] | None = None,
    start: Callable[..., Process] = start_python,
) -> Report:
    """Train a run in peace and one that is killed `num_kills` times, below `folder`, and compare them.

    `start` starts a Python program, as `start_python` does.
    """
    tell = tell or _say
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.json"
    config.write_text(config_to_json(soak_config(kind, num_steps=num_steps)))
    peaceful, disturbed = folder / "peaceful", folder / "disturbed"
    _finish(Run(config, peaceful, kind.num_processes, start))
    chance, report = random.Random(seed), Report()
    for number in range(num_kills):
        before, unfinished = steps_logged(disturbed), _unfinished(disturbed)
        run = Run(config, disturbed, kind.num_processes, start)
        left = num_steps - steps_saved(disturbed)
        moment = _wait_for_a_moment(run, disturbed, chance, left=left, kills_left=num_kills - number)
        if moment == "the run was over":
            tell(f"{kind}: over after {number} kills; the run is too short for {num_kills}")
            break
        run.kill(chance)
        report.kills[moment] = report.kills.get(moment, 0) + 1
        half = bool(_unfinished(disturbed) - unfinished)
        report.half_written += half
        lost = max(steps_logged(disturbed), before) - steps_saved(disturbed)
        report.steps_lost += max(lost, 0)
        tell(
            f"{kind}: kill {number + 1} while {moment}, step {steps_logged(disturbed)}, newest checkpoint "
            f"{steps_saved(disturbed)}{', one half written' if half else ''}"
        )
    _finish(Run(config, disturbed, kind.num_processes, start))
    _compare(peaceful, disturbed, report)
    return report


def steps_saved(folder: Path) -> int:
    """Step of the newest checkpoint of a run; 0 without any."""
    return max((int(path.name[5:]) for path in (folder / "checkpoints").glob("step-????????")), default=0)


def steps_logged(folder: Path) -> int:
    """Last whole line of the metrics of a run; 0 without any."""
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    for line in reversed(lines[-2:]):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError):
            continue
    return 0


def _wait_for_a_moment(run: Run, folder: Path, chance: random.Random, *, left: int, kills_left: int) -> str:
    """Return when it is time to kill, and say what the run is doing then."""
    kind = chance.choices(["starting", "training", "writing a checkpoint"], weights=[1, 5, 4])[0]
    started, first = time.monotonic(), steps_saved(folder)
    give_up_at = started + chance.uniform(0.5, 6.0)
    target = first + chance.randint(1, max(1, 2 * left // (kills_left + 1)))
    pause = chance.uniform(0.0, 0.05)
    while True:
        if run.over:
            return "the run was over"
        now = time.monotonic()
        if kind == "starting" and now > give_up_at:
            return kind
        logged = steps_logged(folder)
        if kind == "training" and logged >= target:
            time.sleep(pause)
            return kind
        if kind == "writing a checkpoint" and logged >= target - 1 and _is_writing(folder):
            time.sleep(chance.choice([0.0, 0.0, 0.001, 0.003]))
            return kind
        if now - started > _LONGEST_RUN_SECONDS:
            run.kill(chance)
            raise RuntimeError(f"The run in {folder} did not get anywhere in {_LONGEST_RUN_SECONDS:.0f} s.")
        time.sleep(_POLL_SECONDS)


def _unfinished(folder: Path) -> set[tuple[str, int]]:
    """Unfinished checkpoints, each with the time of its last change: one of before counts once."""
    return {(path.name, path.stat().st_mtime_ns) for path in (folder / "checkpoints").glob(".*.unfinished")}


def _is_writing(folder: Path) -> bool:
    return any((folder / "checkpoints").glob(".*.unfinished/*"))


def _finish(run: Run) -> None:
    started = time.monotonic()
    while not run.over:
        time.sleep(0.05)
        if time.monotonic() - started > _LONGEST_RUN_SECONDS:
            run.kill(random.Random(0))
            raise RuntimeError(f"A run did not end in {_LONGEST_RUN_SECONDS:.0f} s.")


def _compare(peaceful: Path, disturbed: Path, report: Report) -> None:
    for weights in ("model", "model-raw"):
        expected, found = (load_file(run / weights / "model.safetensors") for run in (peaceful, disturbed))
        assert expected.keys() == found.keys()
        for name, tensor in expected.items():
            if not torch.equal(tensor, found[name]):
                report.different_tensors += 1
                difference = float((tensor.double() - found[name].double()).abs().max())
                report.largest_difference = max(report.largest_difference, difference)
    rows = [
        [
            {key: value for key, value in row.items() if key not in OF_THE_MACHINE}
            for row in read_metrics(run / "metrics.jsonl")
        ]
        for run in (peaceful, disturbed)
    ]
    report.different_rows = sum(one != other for one, other in zip(*rows, strict=False)) + abs(
        len(rows[0]) - len(rows[1])
    )


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Soak every kind of run; 1 if one of them ended otherwise than it would have in peace."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="kills of each kind of run")
    parser.add_argument("--steps", type=int, default=300, help="steps of each run")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    parser.add_argument("--out", type=Path, required=True, help="a folder that does not exist")
    arguments = parser.parse_args()
    if arguments.out.exists():
        parser.error(f"{arguments.out} exists")
    failed = False
    for index, kind in enumerate(KINDS):
        report = soak(
            arguments.out / str(index),
            kind,
            num_kills=arguments.kills,
            num_steps=arguments.steps,
            seed=arguments.seed + index,
        )
        failed |= not report.same
        how = ", ".join(f"{count} while {moment}" for moment, count in sorted(report.kills.items()))
        outcome = (
            "losses and weights are those of the undisturbed run, to the bit"
            if report.same
            else f"{report.different_tensors} tensors differ by up to {report.largest_difference:.2e}, "
            f"{report.different_rows} rows of metrics differ"
        )
        _say(
            f"{kind}: {sum(report.kills.values())} kills ({how}), {report.half_written} left half a checkpoint, "
            f"{report.steps_lost} steps taken again; {outcome}"
        )
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
