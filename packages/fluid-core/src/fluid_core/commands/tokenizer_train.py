"""`fluid tokenizer train`: trains the autoencoder of a configuration file."""

from pathlib import Path
from typing import Annotated

import typer


def train_tokenizer(
    config: Annotated[
        Path, typer.Argument(help="A TOML file; see examples/configs/tokenizer-kl.toml.", show_default=False)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            help="Changes to it, such as training.num_steps=500 tokenizer.options.training.kl_weight=1e-3.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; by default runs/ and the file's name.")] = None,
    resume: Annotated[bool, typer.Option(help="Continue from the newest checkpoint in the folder.")] = False,
) -> None:
    """Train a tokenizer: metrics, reconstructions, checkpoints and the finished tokenizer go to one folder."""
    from fluid_core.configuration import load_tokenizer_run

    settings = load_tokenizer_run(config, overrides=overrides or [])
    folder = out or Path("runs") / config.stem

    from fluid_core.training.tokenizers.trainer import TokenizerTrainer

    trainer = TokenizerTrainer(settings, folder, resume=resume)
    num_parameters = sum(p.numel() for p in trainer.tokenizer.parameters() if p.requires_grad)
    trainer.progress.note(f"{num_parameters / 1e6:.2f} million trained parameters, run in {folder}")
    result = trainer.train()
    trainer.processes.leave()
    if not trainer.processes.is_first:
        return
    quality = f", {result.validation['psnr']:.1f} dB PSNR on held-out images" if result.validation else ""
    typer.echo(
        f"Trained {result.num_steps} steps in {result.seconds:.0f} s ({result.images_per_second:.0f} images/s)"
        f"{quality}. Tokenizer: {result.tokenizer_folder}"
    )
