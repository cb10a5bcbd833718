"""Where the model is, in the folder of a saved model or of a run. Loads no torch."""

from pathlib import Path

from fluid_core.errors import CheckpointError


def model_folder(folder: Path) -> Path:
    """The folder itself, or the finished model of a run. Raises `CheckpointError` for a run that has none yet."""
    if (folder / "model").is_dir():
        return folder / "model"
    if (folder / "config.json").is_file() and not (folder / "model_index.json").exists():
        raise CheckpointError(
            f"The run in {folder} has not finished: expected its model in {folder / 'model'}, found none. Continue it "
            f"with the configuration file it was started with: fluid train FILE --out {folder} --resume."
        )
    return folder
