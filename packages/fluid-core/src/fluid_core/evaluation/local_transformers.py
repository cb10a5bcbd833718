"""Models of transformers from folders on this machine: nothing is downloaded, nothing that is missing is made up."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from fluid_core.errors import CheckpointError

LOADING_FAILURES = (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError, SafetensorError)
"""What transformers raises for missing, damaged or unfit files."""


def load_local(folder: Path, model_class: Any, *, what: str, example: str) -> Any:
    """The model in `folder`, in evaluation mode and float32, from safetensors alone.

    `what` names the kind of model in messages, and `example` one of the hub that would do. Raises `CheckpointError` for
    a folder that is missing or holds another kind of model, and for weights that are missing or damaged.
    """
    check_local(folder, what=what, example=example)
    from transformers import AutoConfig
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        wanted = model_class.config_class.model_type
        if config.model_type != wanted:
            raise CheckpointError(
                f"Expected {what} (model_type '{wanted}') in {folder}, found one of type '{config.model_type}'. Pass "
                f"a folder such as a download of {example}."
            )
        model, report = model_class.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, output_loading_info=True, dtype=torch.float32
        )
    except LOADING_FAILURES as error:
        raise CheckpointError(
            f"Expected {what} with weights in safetensors files in {folder}, found none that can be read: "
            f"{first_line(error)} Download it again, or convert it with save_pretrained()."
        ) from error
    finally:
        logging.set_verbosity(level)
    # transformers fills what is missing with random numbers, which would be silent nonsense.
    wrong = sorted(str(key) for key in {*report["missing_keys"], *report["mismatched_keys"]})
    if wrong:
        raise CheckpointError(
            f"Expected all weights of {what} in {folder}, found {len(wrong)} missing or of another shape, such as "
            f"{wrong[0]}. Pass a complete checkpoint."
        )
    return model.eval()


def load_local_part(folder: Path, part_class: Any, *, what: str, files: str) -> Any:
    """What stands beside a model, such as its tokenizer or the preparation of its pictures.

    Raises `CheckpointError` that says which `files` are needed if it can not be read.
    """
    try:
        return part_class.from_pretrained(folder, local_files_only=True)
    except LOADING_FAILURES as error:
        raise CheckpointError(
            f"Expected {what} in {folder} ({files}), found none that can be read: {first_line(error)} Copy these files "
            "from where the model came from."
        ) from error


def check_local(folder: Path, *, what: str, example: str) -> None:
    """Raise `CheckpointError`, saying where to get it, unless `folder` holds the configuration of a model."""
    if not (folder / "config.json").is_file():
        found = "a folder without config.json" if folder.is_dir() else "no such folder"
        raise CheckpointError(
            f"Expected {what} at {folder}, found {found}. Nothing is downloaded: fetch a model such as {example} where "
            f"there is a network (`hf download {example} --local-dir FOLDER`), and pass its folder."
        )


def folder_digest(folder: Path) -> str:
    """SHA-256 over names and contents of the model's files in a folder, the same wherever the folder lies."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".txt")):
        digest.update(f"{path.name}\n".encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def first_line(error: Exception) -> str:
    """First line of an error's text, as a sentence."""
    lines = str(error).strip().splitlines()
    line = lines[0].rstrip() if lines else type(error).__name__
    return line if line.endswith(".") else line + "."
