"""The folder of a run: claimed by one run alone, and what a stopped run left half finished is removed."""

from pathlib import Path

from fluid_core.atomic_files import check_writable, remove_unfinished
from fluid_core.configuration import FluidConfig, config_from_json, tokenizer_run_from_json
from fluid_core.errors import CheckpointError
from fluid_core.training.checkpoints.same_run import RunConfig, check_same_run
from fluid_core.training.checkpoints.whole import checkpoints

CONFIG_FILE = "config.json"
CHECKPOINTS = "checkpoints"


def check_run_folder(folder: Path, config: RunConfig, *, resume: bool) -> None:
    """Whether a run of `config` may use `folder`; with `resume` remove what is unfinished there.

    Raises `CheckpointError` for a folder that holds a run unless it is resumed, `CheckpointMismatchError` if that run
    was another, `ConfigurationError` if its configuration is damaged, and `OutputError` if nothing can be written.
    """
    saved = folder / CONFIG_FILE
    if not resume and (saved.exists() or checkpoints(folder / CHECKPOINTS)):
        raise CheckpointError(
            f"{folder} already holds a run. Continue it with resume (--resume), or choose another folder (--out)."
        )
    if saved.exists():
        text = saved.read_text(encoding="utf-8", errors="replace")
        read = config_from_json if isinstance(config, FluidConfig) else tokenizer_run_from_json
        check_same_run(read(text, source=f"configuration {saved}"), config, folder)
    check_writable(folder)
    if resume:
        remove_unfinished(folder)
        remove_unfinished(folder / CHECKPOINTS)


def how_to_go_on(folder: Path) -> str:
    """The end of a sentence that says what to change in a run that went wrong."""
    found = checkpoints(folder / CHECKPOINTS)
    if not found:
        return ", and start again."
    before = f"continues from {found[-2].name}" if len(found) > 1 else "starts anew"
    return (
        f", and resume (--resume), which continues from {found[-1].name}. If the weights had gone wrong by then, "
        f"delete the folder {found[-1]} first: the run then {before}."
    )


def how_to_resume(folder: Path) -> str:
    """A sentence that says where a run in `folder` goes on that ended before its time."""
    found = checkpoints(folder / CHECKPOINTS)
    if not found:
        return f"No checkpoint of {folder} was written yet: start again with --resume."
    return f"{found[-1]} is whole: resume with --resume (the folder as before: --out {folder})."
