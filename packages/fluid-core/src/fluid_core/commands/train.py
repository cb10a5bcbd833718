"""`fluid train`: trains the model of a configuration file."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="A TOML file; see examples/configs.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Changes to it, such as training.num_steps=500 head.options.depth=3.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; by default runs/ and the file's name.")] = None,
    resume: Annotated[bool, typer.Option(help="Continue from the newest checkpoint in the folder.")] = False,
) -> None:
    """Train a model: progress, metrics, samples, checkpoints and the finished model go to one folder."""
    from fluid_core.configuration import load_config
    from fluid_core.errors import RunStoppedError

    settings = load_config(config, overrides=overrides or [])
    folder = out or Path("runs") / config.stem

    from fluid_core.training.trainer import Trainer

    trainer = Trainer(settings, folder, resume=resume)
    num_parameters = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    trainer.progress.note(f"{num_parameters / 1e6:.2f} million trained parameters, run in {folder}")
    try:
        result = trainer.train()
    except RunStoppedError:
        # All processes stop after the same step. What ends one of them alone can not wait for the others.
        trainer.processes.leave()
        raise
    trainer.processes.leave()
    if not trainer.processes.is_first:
        return
    typer.echo(
        f"Trained {result.num_steps} steps in {result.seconds:.0f} s ({result.images_per_second:.0f} images/s). "
        f"Model: {result.model_folder}"
    )
